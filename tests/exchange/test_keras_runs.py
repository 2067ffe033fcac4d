"""`mnist-bench import-keras` and `export-keras`, against Keras's own predictions."""

import json
import re
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from mnist_bench.data.images import Images
from mnist_bench.errors import BenchError
from mnist_bench.exchange.keras.runs import export_run, import_run
from mnist_bench.runs.checkpoint import read_checkpoint, resume_command
from mnist_bench.runs.folder import RunFolder
from tests.support import keras_reference
from tests.support.keras_reference import pixels
from tests.support.train_command import run_train


def test_notebook_003_is_imported_with_as_many_errors_as_in_keras(
    images: Images, mnist_root: Path, tmp_path: Path
) -> None:
    """The network of the notebook's code cells, trained a little and saved as it was saved."""
    model = keras.Sequential(keras_reference.cnn5x5()[:-1])
    model.add(keras.layers.Dense(10, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    train = (images.train_images[5000:6000, ..., None] / 255).numpy()
    model.fit(train, images.train_labels[5000:6000].numpy(), batch_size=100, verbose=0)
    model.save(tmp_path / "keras_cnn.h5")
    expected = model.predict(pixels(images, 2_000), batch_size=500, verbose=0)
    labels = images.test_labels[:2_000].numpy()

    done = run_train(
        *("keras_cnn.h5", "--model", "cnn5x5", "--out", "run", "data.limit=2000"),
        cwd=tmp_path,
        data_root=mnist_root,
        verb="import-keras",
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "imported"
    assert summary["imported_from"].startswith("keras_cnn.h5, sha256 ")
    assert summary["test_errors"] == (expected.argmax(1) != labels).sum()
    assert 0 < summary["test_errors"] < 1000
    saved = np.load(tmp_path / "run/predictions.npz")
    ours = torch.from_numpy(saved["logits"]).softmax(1).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    np.testing.assert_array_equal(saved["labels"], labels)


def test_an_imported_run_trains_on_and_is_exported(
    saved: Path, mnist_root: Path, tmp_path: Path
) -> None:
    overrides = ("trainer.epochs=1", "data.limit=500", "optimizer=sgd", "optimizer.lr=1e-6")
    done = run_train(
        *(str(saved / "single.h5"), "--model", "cnn5x5_single", "--out", "run"),
        *overrides,
        cwd=tmp_path,
        data_root=mnist_root,
        verb="import-keras",
    )
    assert done.returncode == 0, done.stderr
    done = run_train("resume=run", cwd=tmp_path, data_root=mnist_root)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["status"], summary["epochs"]) == ("completed", 1)
    assert summary["imported_from"].startswith("single.h5, ")

    export_run(tmp_path / "run", tmp_path / "trained.keras")
    trained = keras.saving.load_model(tmp_path / "trained.keras").get_weights()
    start = keras.saving.load_model(saved / "single.keras").get_weights()
    moved = max(np.abs(a - b).max() for a, b in zip(trained, start, strict=True))
    assert 0 < moved < 1e-3, "trained on, with tiny steps, from the weights of the file"


@pytest.mark.slow
def test_the_weights_that_were_tested_are_exported(
    images: Images, mnist_root: Path, tmp_path: Path
) -> None:
    """A run whose best epoch is not its last, as about every other of these: its predictions were
    made with the best.
    """
    done = run_train(
        *("-m", "seed=range(10)", "model=cnn5x5_single", "data.limit=200"),
        *("trainer.epochs=2", "optimizer=sgd", "optimizer.lr=0.5", "scheduler=constant"),
        *("trainer.precision=fp32", "hydra.sweep.dir=runs"),
        cwd=tmp_path,
        data_root=mnist_root,
    )
    assert done.returncode == 0, done.stderr
    for summary in sorted(tmp_path.glob("runs/*/summary.json")):
        run, found = summary.parent, json.loads(summary.read_text())
        if found["tested_epoch"] < found["epochs"]:
            break
    else:
        pytest.fail("this test needs another recipe")
    export_run(run, tmp_path / "run.keras")
    model = keras.saving.load_model(tmp_path / "run.keras")
    logits = np.load(run / "predictions.npz")["logits"]
    expected = torch.from_numpy(logits).softmax(1).numpy()
    np.testing.assert_allclose(model.predict(pixels(images, 200), verbose=0), expected, atol=1e-5)


def test_imported_weights_are_their_own_mean(
    saved: Path, mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNIST_BENCH_DATA", str(mnist_root))
    settings = ["model=cnn5x5_single", "data.limit=500"]
    import_run(saved / "single.keras", tmp_path / "plain", settings)
    import_run(saved / "single.keras", tmp_path / "mean", [*settings, "trainer.ema_decay=0.9"])
    plain, mean = (np.load(tmp_path / run / "predictions.npz") for run in ("plain", "mean"))
    np.testing.assert_array_equal(mean["logits"], plain["logits"])
    state = read_checkpoint(RunFolder(tmp_path / "mean").last)
    assert all(
        torch.equal(state["average"][name], state["network"][name]) for name in state["network"]
    )


@pytest.mark.parametrize(
    ("file", "folder", "overrides", "sentence"),
    [
        ("nothing.h5", "run", [], r"nothing\.h5 is not there: give a .*"),
        ("single.h5", ".", [], "is there already: choose another folder"),
        ("single.h5", "single.h5", [], "is there already: choose another folder"),
        ("single.h5", "run", ["model.kernel_size=3"], "differs from this network at layer 1"),
        ("single.h5", "run", ["trainer.epoch=3"], r"did you mean trainer\.epochs"),
        ("single.h5", "run", ["resume=run"], "resume= goes on with a run"),
    ],
)
def test_what_cannot_be_imported_is_refused(
    saved: Path,
    mnist_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    folder: str,
    overrides: list[str],
    sentence: str,
) -> None:
    monkeypatch.setenv("MNIST_BENCH_DATA", str(mnist_root))
    before = sorted(saved.rglob("*"))
    with pytest.raises(BenchError, match=sentence):
        import_run(saved / file, saved / folder, ["model=cnn5x5_single", *overrides])
    assert sorted(saved.rglob("*")) == before


def test_a_refusal_is_one_sentence_on_stderr(mnist_root: Path, tmp_path: Path) -> None:
    done = run_train(
        *("nothing.h5", "--model", "cnn5x5", "--out", "run"),
        cwd=tmp_path,
        data_root=mnist_root,
        verb="import-keras",
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"nothing\.h5 is not there: [^\n]*\.\n", done.stderr)


@pytest.mark.parametrize("folder", ["run", "my run", "seed=0"])
def test_the_command_that_trains_on_is_quoted_for_hydra_and_the_shell(folder: str) -> None:
    program, script, override = shlex.split(resume_command(Path(folder)))
    assert (program, script) == ("mnist-bench", "train")
    parsed = OverridesParser.create().parse_override(override)
    assert (parsed.key_or_group, parsed.value()) == ("resume", folder)


def test_a_folder_that_is_no_run_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"is not the folder of a run"):
        export_run(tmp_path, tmp_path / "x.keras")
