"""Several networks together, from predictions that were made up, against plain loops."""

import json
from collections import Counter

import numpy as np
import pytest
from typer.testing import CliRunner

from mnist_bench.analysis.ensemble import combine_runs, majority
from mnist_bench.cli import app
from mnist_bench.errors import ConfigError, DataError

IMAGES, CLASSES = 400, 5


def write_run(folder, labels, seed, dataset="mnist", classes=CLASSES):
    """A run whose network is right of about three images in four."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 1.2, (len(labels), classes)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += 2
    folder.mkdir(parents=True)
    np.savez(folder / "predictions.npz", logits=logits, labels=labels)
    summary = {"status": "completed", "model": f"net{seed}", "dataset": dataset}
    (folder / "summary.json").write_text(json.dumps(summary))
    return logits


@pytest.fixture
def labels():
    return np.random.default_rng(9).integers(0, CLASSES, IMAGES)


def test_mean_and_vote_are_those_of_a_loop_over_the_images(labels, tmp_path) -> None:
    runs = [tmp_path / f"run{n}" for n in range(4)]
    all_logits = [write_run(run, labels, seed) for seed, run in enumerate(runs)]
    found = combine_runs(runs)
    single, mean_errors, vote_errors, all_wrong, any_wrong = [0] * 4, 0, 0, 0, 0
    for n, label in enumerate(labels.tolist()):
        shares = []
        for logits in all_logits:
            powers = [np.exp(float(v)) for v in logits[n]]
            shares.append([p / sum(powers) for p in powers])
        named = [row.index(max(row)) for row in shares]
        mean = [sum(row[k] for row in shares) / 4 for k in range(CLASSES)]
        votes = Counter(named)
        tied = [k for k in votes if votes[k] == max(votes.values())]
        mean_errors += mean.index(max(mean)) != label
        vote_errors += max(tied, key=lambda k: mean[k]) != label
        wrong = [guess != label for guess in named]
        single = [a + b for a, b in zip(single, wrong, strict=True)]
        all_wrong += all(wrong)
        any_wrong += any(wrong)
    assert list(found.errors) == single
    assert (found.errors_of_mean, found.errors_of_vote) == (mean_errors, vote_errors)
    assert (found.all_wrong, found.any_wrong) == (all_wrong, any_wrong)
    assert found.errors_of_mean < min(single)


def test_of_equally_many_votes_the_mean_decides() -> None:
    predicted = np.array([[0, 2], [1, 2], [2, 0], [1, 0]])  # runs x images
    mean = np.array([[0.5, 0.2, 0.3], [0.3, 0.3, 0.4]])
    assert majority(predicted, mean).tolist() == [1, 2]


def test_a_sweep_stands_for_its_runs_and_none_counts_twice(labels, tmp_path) -> None:
    for n in range(3):
        write_run(tmp_path / "sweep" / f"seed={n}", labels, n)
    again = tmp_path / "sweep" / ".." / "sweep" / "seed=1"
    found = combine_runs([tmp_path / "sweep", tmp_path / "sweep" / "seed=1", again])
    assert [run.name for run in found.runs] == ["seed=0", "seed=1", "seed=2"]


def test_the_command_tells_it_as_a_table_and_as_json(labels, tmp_path) -> None:
    runs = [tmp_path / f"run{n}" for n in range(2)]
    for seed, run in enumerate(runs):
        write_run(run, labels, seed)
    expected = combine_runs(runs)
    done = CliRunner().invoke(app, ["ensemble", *map(str, runs), "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert told["mean"] == {
        "errors": expected.errors_of_mean,
        "accuracy": pytest.approx(1 - expected.errors_of_mean / IMAGES),
    }
    assert [one["errors"] for one in told["runs"]] == list(expected.errors)
    table = CliRunner().invoke(app, ["ensemble", *map(str, runs)]).stdout
    assert f"{1 - expected.errors_of_vote / IMAGES:.2%}" in table


def test_what_cannot_be_combined_is_refused_in_a_sentence(labels, tmp_path) -> None:
    write_run(tmp_path / "one", labels, 0)
    write_run(tmp_path / "fashion", labels, 1, dataset="fashion_mnist")
    write_run(tmp_path / "shuffled", labels[::-1].copy(), 2)
    write_run(tmp_path / "damaged", labels, 3)
    (tmp_path / "damaged" / "predictions.npz").write_bytes(b"PK no archive")
    (tmp_path / "untested").mkdir()
    (tmp_path / "untested" / "metrics.csv").write_text("epoch\n")
    one = tmp_path / "one"
    for other, kind, said in [
        ("fashion", ConfigError, "tested on other images than .*400 of fashion_mnist"),
        ("shuffled", ConfigError, "tested on other images"),
        ("damaged", DataError, "is damaged"),
        ("untested", ConfigError, "has no predictions.npz"),
        (
            "one",
            ConfigError,
            "takes two runs or more that were tested, and there is 1 in .*one: give",
        ),
    ]:
        with pytest.raises(kind, match=said):
            combine_runs([one, tmp_path / other])
