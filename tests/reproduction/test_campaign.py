"""A reproduction in miniature: real trainings on a few hundred real images, by train.py."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mnist_bench.config.compose import compose
from mnist_bench.errors import ConfigError
from mnist_bench.reproduction import campaign
from mnist_bench.reproduction.comparisons import compare_all
from mnist_bench.reproduction.evidence import read_evidence
from mnist_bench.reproduction.plan import plan
from mnist_bench.reproduction.published import EXPERIMENTS, PUBLISHED
from mnist_bench.reproduction.reproduce import reproduce
from tests.support.config_files import write_hydra_folder
from tests.support.train_command import REPOSITORY, environment

SMALL = ["data.limit=300", "trainer.epochs=2", "trainer.figures=false"]
ENDLESS = ["data.limit=300", "trainer.epochs=1000", "trainer.figures=false"]
REPRODUCE_ENDLESSLY = f"""
import sys
from pathlib import Path
from mnist_bench.reproduction.reproduce import reproduce
sys.exit(reproduce(["cnn5x5_single"], runs=Path("runs"), gpus="0", overrides={ENDLESS}))
"""
# By filelock, as another program might: the locks have to be of one kind.
HOLD_A_LOCK = """
import sys, filelock
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def locked_by_another_process(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_LOCK, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield
    finally:
        process.communicate()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text())


def damage_a_checkpoint(folder, experiment):
    """A run of the recipe that train.py refuses to resume."""
    write_hydra_folder(folder, *compose([f"experiment={experiment}", *SMALL]))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.pt").write_text("not a checkpoint")


def leave_over(folder):
    """What a run killed in its first epoch leaves."""
    folder.mkdir(parents=True)
    (folder / "train.log").write_text("precious\n")


@dataclass
class Ended:
    """A campaign that ended: its folder, exit code, words and what was there right after it."""

    cwd: Path
    code: int
    output: str
    errors: str
    folders: set[str]

    def run(self, name):
        return self.cwd / "runs" / name


def go_through(cwd, data_root, names):
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as output,
        redirect_stderr(io.StringIO()) as errors,
    ):
        patch.setenv("MNIST_BENCH_DATA", str(data_root))
        code = reproduce(names, 1, cwd / "runs", cwd / "results", gpus="0", overrides=SMALL)
    folders = {str(path.relative_to(cwd / "runs")) for path in cwd.glob("runs/*/seed=*")}
    return Ended(cwd, code, output.getvalue(), errors.getvalue(), folders)


@pytest.fixture(scope="module")
def first(tmp_path_factory, mnist_root):
    """A campaign among obstacles."""
    cwd = tmp_path_factory.mktemp("reproduction")
    damage_a_checkpoint(cwd / "runs" / "wide3x3" / "seed=0", "wide3x3")
    leave_over(cwd / "runs" / "cnn5x5_single" / "seed=0")
    with locked_by_another_process(cwd / "runs" / "cnn3x3" / ".seed=0.lock"):
        return go_through(cwd, mnist_root, ["wide3x3", "cnn3x3", "cnn5x5_single"])


@pytest.fixture(scope="module")
def second(first, mnist_root):
    """A second start, with nothing locked any more."""
    finished = first.run("cnn5x5_single/seed=0") / "summary.json"
    before = finished.stat()
    ended = go_through(first.cwd, mnist_root, ["cnn3x3", "cnn5x5_single"])
    assert finished.stat() == before, "a finished run was trained again"
    return ended


def test_the_plan_line_comes_first(first, second):
    assert first.output.startswith(
        "3 experiments x 1 seed: 0 of 3 runs are there, 3 to train (1 begun)."
    )
    assert second.output.startswith("2 experiments x 1 seed: 1 of 2 runs are there, 1 to train.")


def test_a_failing_run_does_not_stop_the_others_and_is_told_at_the_end(first):
    assert first.code == 1
    assert read_summary(first.run("cnn5x5_single/seed=0"))["status"] == "completed"
    assert first.errors == "wide3x3/seed=0: ended with code 1\n"
    assert "cnn5x5_single" in (first.cwd / "results" / "reproduction.md").read_text()


def test_a_run_that_another_process_has_locked_is_left_to_it(first):
    assert "cnn3x3/seed=0 is being trained by another process" in first.output
    assert "cnn3x3/seed=0" not in first.folders


def test_a_folder_with_nothing_to_resume_is_set_aside_whole(first):
    aside = "cnn5x5_single/seed=0--unfinished-1"
    assert (first.run(aside) / "train.log").read_text() == "precious\n"
    assert "seed=0--unfinished-1" in first.output
    assert first.folders == {"wide3x3/seed=0", "cnn5x5_single/seed=0", aside}


def test_a_second_start_trains_what_is_missing_only(second):
    assert second.code == 0
    assert "experiment=cnn5x5_single" not in second.output
    assert read_summary(second.run("cnn3x3/seed=0"))["status"] == "completed"
    evidence = read_evidence(second.cwd / "results" / "reproduction")
    assert {key.experiment for key in evidence.runs} == {"cnn3x3", "cnn5x5_single"}


def test_the_runs_are_those_of_the_command_line_that_is_printed(second):
    overrides = read_summary(second.run("cnn3x3/seed=0"))["overrides"]
    assert overrides == ["experiment=cnn3x3", "seed=0", *SMALL, "trainer.gpus=0"]
    assert f"python train.py {' '.join(overrides)} 'hydra.run.dir=" in second.output


def test_evidence_is_what_the_runs_left(second):
    folder = second.cwd / "results" / "reproduction"
    rows = read_csv(folder / "runs.csv")
    assert len(rows) == 2
    for row in rows:
        run = second.run(f"{row['experiment']}/seed={row['seed']}")
        summary, metrics = read_summary(run), read_csv(run / "metrics.csv")
        assert row["device"] == summary["device"]
        assert row["git_commit"] == (summary["git_commit"] or "")
        assert row["torch"] == summary["versions"]["torch"]
        for key in ("train_loss", "train_accuracy", "val_loss", "test_accuracy", "test_errors"):
            assert float(row[key]) == pytest.approx(summary[key], rel=1e-6)
        seconds = [float(epoch["seconds"]) for epoch in metrics]
        assert float(row["seconds_per_epoch"]) == pytest.approx(np.median(seconds), rel=1e-6)
        curve = [
            {key: epoch[key] for key in metrics[0] if key != "val_balanced_accuracy"}
            for epoch in read_csv(folder / "curves.csv")
            if epoch["experiment"] == row["experiment"]
        ]
        assert curve == [{key: epoch[key] for key in curve[0]} for epoch in metrics]


def test_mcnemar_counts_the_images_of_both_runs_predictions(second):
    made = compare_all(read_evidence(second.cwd / "results" / "reproduction"))
    (comparison,) = (c for c in made if c and c.question.name == "cnn5x5_single minus cnn3x3")
    test = comparison.images[0]
    first, other = (
        np.load(second.run(f"{name}/seed=0") / "predictions.npz")
        for name in ("cnn5x5_single", "cnn3x3")
    )
    only_first = only_other = 0
    for first_logits, other_logits, label in zip(
        first["logits"], other["logits"], first["labels"], strict=True
    ):
        first_right, other_right = first_logits.argmax() == label, other_logits.argmax() == label
        only_first += first_right and not other_right
        only_other += other_right and not first_right
    assert only_first + only_other > 10, "two such networks differ on many of 300 images"
    assert (test.only_a, test.only_b) == (only_first, only_other)


# --- Stopping ---------------------------------------------------------------------------------


@contextmanager
def endless_campaign(cwd, data_root, epochs):
    """A campaign that does not end, from when its run has that many epochs."""
    process = subprocess.Popen(
        [sys.executable, "-c", REPRODUCE_ENDLESSLY],
        cwd=cwd,
        env=environment(data_root, PYTHONPATH=str(REPOSITORY)),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        metrics = cwd / "runs" / "cnn5x5_single" / "seed=0" / "metrics.csv"
        wait_for(
            lambda: (
                process.poll() is not None
                or (metrics.exists() and len(read_csv(metrics)) >= epochs)
            )
        )
        assert process.poll() is None, process.stdout.read()
        yield process


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, mnist_root):
    """A campaign that got Ctrl-C: its folder, exit code and output."""
    cwd = tmp_path_factory.mktemp("interrupted")
    with endless_campaign(cwd, mnist_root, epochs=1) as process:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    return cwd, process.returncode, output


@pytest.mark.slow
def test_ctrl_c_saves_the_run_and_ends_the_campaign(interrupted):
    cwd, code, output = interrupted
    assert code == 130
    assert output.endswith("Stopped. To go on, give the same command again.\n")
    run = cwd / "runs" / "cnn5x5_single" / "seed=0"
    assert read_summary(run)["status"] == "interrupted"
    assert (run / "checkpoints" / "last.pt").is_file()
    assert not [path for path in (cwd / "results").rglob("*") if path.is_file()], "no report"


@pytest.mark.slow
def test_a_second_start_goes_on_and_its_training_outlives_it_under_the_lock(
    interrupted, mnist_root
):
    cwd, *_ = interrupted
    run = cwd / "runs" / "cnn5x5_single" / "seed=0"
    before = read_csv(run / "metrics.csv")
    with endless_campaign(cwd, mnist_root, epochs=len(before) + 1) as campaign_process:
        assert read_csv(run / "metrics.csv")[: len(before)] == before, "trained again"
        training = only_child(campaign_process.pid)
        campaign_process.kill()
        campaign_process.wait(60)
        with campaign.hold(run) as lock:
            assert lock is None, "a third campaign would train into the same folder"
        os.kill(training, signal.SIGTERM)
        campaign_process.stdout.read()  # until the training has closed it, too
        with campaign.hold(run) as lock:
            assert lock is not None


def only_child(pid):
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)
    pairs = [tuple(map(int, line.split())) for line in listing.stdout.splitlines()]
    (child,) = (child for child, parent in pairs if parent == pid)
    return child


# --- What is planned --------------------------------------------------------------------------


def test_every_experiment_has_a_seed_before_any_has_two():
    runs = plan(["cnn3x3", "mnist_cnn"], 2, Path("runs"), "fp32")
    assert [(run.seed, run.experiment) for run in runs] == [
        *((0, "cnn3x3"), (0, "mnist_cnn"), (1, "cnn3x3"), (1, "mnist_cnn"))
    ]


def test_without_names_all_that_was_published_is_planned():
    assert [run.experiment for run in plan([], 1, Path("runs"), "fp32")] == list(PUBLISHED)
    assert len(PUBLISHED) == 9


def test_every_experiment_has_a_configuration():
    conf = {path.stem for path in (REPOSITORY / "conf" / "experiment").glob("*.yaml")}
    assert set(EXPERIMENTS) <= conf


def test_a_precision_has_folders_and_a_setting_of_its_own():
    (run,) = plan(["cnn3x3"], 1, Path("runs"), "bf16")
    assert run.folder == Path("runs/cnn3x3/seed=0--precision=bf16")
    arguments = campaign.train_arguments(run, campaign.State.absent, [])
    assert arguments == [
        *("experiment=cnn3x3", "seed=0", "trainer.precision=bf16"),
        'hydra.run.dir="runs/cnn3x3/seed=0--precision=bf16"',
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"names": ["cnn4x4"]}, "cnn4x4 is not an experiment: choose among vgg16, "),
        ({"seeds": 0}, "0 seeds make no reproduction: give a whole number of at least 1."),
        ({"precision": "fp8"}, "fp8 is not a precision of a reproduction: choose fp32 or bf16."),
        ({"gpus": "some"}, "trainer.gpus=some"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(tmp_path, arguments, sentence):
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        reproduce(runs=tmp_path / "runs", results=tmp_path / "results", **arguments)
    assert list(tmp_path.iterdir()) == []
