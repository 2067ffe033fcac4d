"""What the runs of a sweep are, and what is refused before one begins."""

import pytest
from hydra import initialize_config_dir

from mnist_bench.config.compose import CONF
from mnist_bench.config.schema import register_schemas
from mnist_bench.config.walk import flatten
from mnist_bench.errors import ConfigError
from mnist_bench.launch.sweeps.plan import compose_job, plan
from tests.support.sweeps import NAMED, sweep_of, when_trained
from tests.support.train_command import TINY, read_summary, run_train


def test_runs_that_would_be_the_same_are_refused(tmp_path, mnist_root):
    for arguments, said in (
        (["seed=0,0"], "Two runs of this sweep would be the same, seed=0"),
        (["model.dropout=0.5,.5"], "Two runs of this sweep would be the same, model.dropout=0.5"),
        (["seed=1", "seed=2,3"], "seed is given twice, as seed=1 and seed=2,3"),
        (["seed=0,1", "sweep.name=a/b"], "sweep.name=a/b is not allowed"),
        (["sweep.name=a,b"], "sweep.name=a,b varies what is one for a whole sweep"),
        (
            ["model.dropout=interval(0,1)"],
            "names no single values: give some, as in model.dropout=",
        ),
        (["seed=range(0)"], "seed=range(0) has no values to vary"),
        (["seed=range(0,9,0)"], "seed=range(0,9,0) has no values to vary"),
        (["model=glob(zzz*)"], "model=glob(zzz*) has no values to vary"),
        (["++seed=0,1", "seed=2"], "seed is given twice, as ++seed=0,1 and seed=2"),
    ):
        process = run_train("-m", *arguments, *TINY, cwd=tmp_path, data_root=mnist_root)
        assert process.returncode == 1
        assert said in process.stderr and len(process.stderr.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []


def test_settings_are_planned_as_they_are_composed(mnist_root):
    """Numbers between the ends of an axis are set without composing all."""
    register_schemas()
    lines = [
        *(
            "model=cnn3x3,vgg16",
            "optimizer.lr=1e-4,2e-4,3e-4,0.5",
            "model.dropout=0.5,[0,0.1],0,0.2",
        ),
        *("model.adam_lr=0.001,0.002,0.003", "seed=range(2)", "data.scaling=raw,unit"),
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        planned = plan("train", lines[:3] + lines[4:], ["hydra.mode=RUN"])
        others = plan("train", ["trainer.gpus=0", lines[3]], ["hydra.mode=RUN"])
        assert len(planned.jobs) == 2 * 4 * 4 * 2 * 2
        assert [job.settings["optimizer.lr"] for job in others.jobs] == [0.001, 0.002, 0.003]
        refers = plan(
            *("train", ["label_smoothing=${model.adam_lr},0", lines[3], "++seed=1,2"]),
            ["hydra.mode=RUN"],
        )
        assert {job.settings["label_smoothing"] for job in refers.jobs} == {0, 1e-3, 2e-3, 3e-3}
        assert refers.jobs[0].name().endswith("--seed=1")
        with pytest.raises(ConfigError, match=r"the same, .* model.adam_lr=0.001 and .*=0.002"):
            plan("train", ["optimizer.lr=1e-3,2e-3", lines[3]], ["hydra.mode=RUN"])
        for job in (*planned.jobs[::17], *others.jobs, *refers.jobs):
            assert job.settings == flatten(compose_job("train", job, ["hydra.mode=RUN"]))


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["seed=0,0"], "the same, seed=0: give every value once"),
        (["model.dropout=0.5,.5"], "the same, model.dropout=0.5: give every value once"),
        (["trainer.save_every=1,2"], "as trainer.save_every changes nothing that they compute"),
        (["model=mnist_cnn,cnn3x3"], "as model=mnist_cnn and model=cnn3x3 differ in nothing that"),
        (
            ["model=cnn3x3,cnn5x5", "model.kernel_size=3,5"],
            "as model=cnn3x3 and model=cnn5x5 differ in model.kernel_size, and here both have "
            "model.kernel_size=3",
        ),
        (
            ["experiment=cnn3x3,cnn3x3_no_dropout", "model.dropout=0", "seed=1,2"],
            "differ in model.dropout, and here both have model.dropout=0",
        ),
    ],
)
def test_why_two_runs_would_be_the_same_is_told(lines: list[str], why: str) -> None:
    register_schemas()
    with (
        initialize_config_dir(str(CONF), version_base="1.3"),
        pytest.raises(ConfigError) as refusal,
    ):
        plan("train", lines, ["hydra.mode=RUN"])
    assert why in str(refusal.value)


def test_another_setting_is_refused_and_the_difference_told(tmp_path, mnist_root):
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1")
    before = when_trained(tmp_path)
    for changed, told in (
        (["seed=0,1", "optimizer.lr=0.1"], "made with optimizer.lr=0.003, and this has"),
        (["seed=5,6", "trainer.epochs=2"], "made with trainer.epochs=1, and this has"),
        (["seed=0,1", "model=cnn3x3", "model.dropout=0"], "made with model.dropout=[0.25,0.5]"),
    ):
        process = sweep_of(tmp_path, mnist_root, *NAMED, *changed, status=1)
        (sentence,) = process.stderr.splitlines()
        assert told in sentence and "give it another sweep.name" in sentence
        assert "or what it was made with: mnist-bench train -m " in sentence
    assert when_trained(tmp_path) == before
    # What changes nothing that is computed may differ.
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1", "trainer.save_every=3")


def test_a_dry_run_tells_what_is_there_and_trains_nothing(tmp_path, mnist_root):
    nothing = sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1", "sweep.dry_run=true")
    assert "how long a run takes is not known yet" in nothing.stdout
    assert not (tmp_path / "outputs").exists()
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1")
    some = sweep_of(tmp_path, mnist_root, *NAMED, "seed=range(4)", "sweep.dry_run=true")
    assert "2 of 4 runs are missing: about " in some.stdout
    assert some.stdout.count("waiting") == 2 and some.stdout.count("completed") == 2
    assert len(when_trained(tmp_path)) == 2


def test_files_in_conf_sweep_are_sweeps(tmp_path, mnist_root):
    """Of which the command line may take a part."""
    process = sweep_of(tmp_path, mnist_root, "sweep=kernel_dropout", *TINY, "sweep.dry_run=true")
    assert "27 of 27 runs are missing" in process.stdout
    part = ("sweep=kernel_dropout", *TINY, "seed=5", "model.dropout=0.1,0.2", "sweep.dry_run=true")
    assert "6 of 6 runs are missing" in sweep_of(tmp_path, mnist_root, *part).stdout


def test_settings_of_sweeps_are_refused_where_they_would_do_nothing(tmp_path, mnist_root):
    for given in (
        [*TINY, "sweep.name=one"],
        ["-m", "hydra/sweeper=basic", *TINY, "seed=0,1", "sweep.dry_run=true"],
    ):
        process = sweep_of(tmp_path, mnist_root, *given, status=1)
        assert "is for a sweep of mnist-bench" in process.stderr
        assert list(tmp_path.iterdir()) == []
    sweep_of(tmp_path, mnist_root, "-m", "hydra/sweeper=basic", *TINY, "seed=0,1")
    assert len(when_trained(tmp_path)) == 2


def test_an_override_that_refers_to_a_setting_is_kept_as_it_was_given(tmp_path, mnist_root):
    refers = "label_smoothing=${model.adam_lr}"
    sweep_of(tmp_path, mnist_root, *TINY, refers, "hydra.run.dir=run")
    summary = read_summary(tmp_path / "run")
    assert refers in summary["overrides"] and summary["config"]["label_smoothing"] == 3e-3
    sweep_of(tmp_path, mnist_root, *NAMED, refers, "model.adam_lr=1e-3,2e-3")
    before = when_trained(tmp_path)
    sweep_of(tmp_path, mnist_root, *NAMED, refers, "model.adam_lr=1e-3,2e-3")
    assert when_trained(tmp_path) == before
