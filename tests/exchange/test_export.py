"""`mnist-bench export`: a file says of every image what the network says, and what it is."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import mnist_bench
from mnist_bench.config.parts import Part, search_in
from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.images import Images
from mnist_bench.data.splits import PixelScaling
from mnist_bench.errors import BenchError, ConfigError, DataError
from mnist_bench.exchange import export
from mnist_bench.exchange.export import export_network
from mnist_bench.exchange.onnx import to_onnx
from mnist_bench.launch.jobs import PROGRAM
from mnist_bench.models import build_network
from mnist_bench.runs.load import TrainedNetwork
from tests.support.own_parts import write_own_parts
from tests.support.train_command import REPOSITORY, environment, run_train

Compose = Callable[..., TrainConfig]
PAGE = REPOSITORY / "docs" / "export.md"


def in_onnxruntime(content: bytes | Path, images: np.ndarray, batch: int = 500) -> np.ndarray:
    """The probabilities that ONNX Runtime computes, from so many images at once."""
    given = content if isinstance(content, bytes) else str(content)
    session = onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"])
    batches = [images[i : i + batch] for i in range(0, len(images), batch)]
    return np.concatenate([session.run(None, {"images": b})[0] for b in batches])


@pytest.mark.parametrize(
    "name",
    [
        *("cnn5x5_single", "tiny"),
        *[
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                *(
                    "cnn5x5",
                    "mnist_cnn",
                    "cnn3x3",
                    "conv3_dense7744",
                    "vgg16",
                    "wide3x3",
                    "wide3x5_bn",
                ),
                *("wide5x7_bn", "simple7x7"),
            )
        ],
    ],
)
def test_onnx_gives_every_test_image_the_networks_label(
    compose: Compose, images: Images, tmp_path: Path, name: str
) -> None:
    """The nine, and the network of docs/extending.md."""
    torch.manual_seed(0)
    if name == "tiny":
        write_own_parts(tmp_path)
        search_in([tmp_path / "mine"])
        config = compose()
        config.model = Part.of("model", {"_target_": "my_parts.TinyNet", "width": 16}, name)
    else:
        config = compose(f"model={name}")
    network = build_network(config.model)
    for key, value in network.state_dict().items():
        if key.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 2)
    divisor = 1.0 if name == "vgg16" else 255.0
    names = tuple(map(str, range(10)))
    scaling = PixelScaling(0.0, divisor)
    trained = TrainedNetwork(config, network.eval(), scaling, (1, 28, 28), names, "drawn")
    tested = images.test_images.numpy()
    expected = trained.predict(tested)
    found = in_onnxruntime(to_onnx(trained, {}), tested)
    print(name, "differs by", np.abs(found - expected.probabilities).max())
    np.testing.assert_array_equal(found.argmax(1), expected.labels)
    np.testing.assert_allclose(found, expected.probabilities, atol=1e-5)


def test_a_run_is_exported_quietly_and_knows_what_it_is(
    uninterrupted: Path, images: Images, mnist_root: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(PROGRAM), "export", str(uninterrupted), "--to", "onnx"]
    done = subprocess.run(
        [*command, "--out", "new/digits.onnx"],
        cwd=tmp_path,
        env=environment(mnist_root),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *_, what, checked = done.stdout.splitlines()
    assert re.fullmatch(r"MNIST: .*\n", done.stdout.removesuffix(f"{what}\n{checked}\n"))
    assert what.startswith("new/digits.onnx: mnist_cnn as of epoch ")
    assert "from uint8 images (N, 28, 28), not scaled, to the probabilities of 10 classes" in what
    assert re.fullmatch(
        r"checked on 1,000 test images of mnist: the same label for all, "
        r"probabilities within \de-\d+",
        checked,
    )
    file = tmp_path / "new/digits.onnx"
    tested = images.test_images[:300].numpy()
    expected = mnist_bench.load(uninterrupted).predict(tested)
    for batch in (1, 7, 300):
        found = in_onnxruntime(file, tested, batch)
        np.testing.assert_allclose(found, expected.probabilities, atol=1e-6)

    model = onnx.load(file)
    told = {entry.key: entry.value for entry in model.metadata_props}
    summary = json.loads((uninterrupted / "summary.json").read_text())
    assert told["digest"] == summary["digest"]
    assert (told["run"], told["model"]) == ("run", "mnist_cnn")
    assert json.loads(told["class_names"]) == [str(digit) for digit in range(10)]
    assert told["mnist_bench_version"] == model.producer_version == mnist_bench.__version__
    places = (str(REPOSITORY), str(Path(torch.__file__).parent), str(tmp_path))
    assert not any(place.encode() in file.read_bytes() for place in places)


def test_safetensors_come_back(
    uninterrupted: Path, images: Images, mnist_root: Path, tmp_path: Path
) -> None:
    file = tmp_path / "digits.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_BENCH_DATA", str(mnist_root))
        export_network(uninterrupted, "safetensors", file)
    expected, found = mnist_bench.load(uninterrupted), mnist_bench.load(file)
    weights = expected.network.state_dict()
    assert found.network.state_dict().keys() == weights.keys()
    assert all(torch.equal(v, weights[k]) for k, v in found.network.state_dict().items())
    same = ("config", "scaling", "image_shape", "class_names", "when")
    assert all(getattr(found, key) == getattr(expected, key) for key in same)
    some = images.test_images[:50]
    np.testing.assert_allclose(
        found.predict(some).probabilities, expected.predict(some).probabilities, atol=1e-6
    )


@pytest.mark.parametrize("damage", [b"", b"something else", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(damage)
    with pytest.raises(DataError, match=r"x\.safetensors cannot be read as a network"):
        mnist_bench.load(tmp_path / "x.safetensors")


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory, mnist_root: Path) -> Path:
    """A folder with mine/, and run/ of the network and the coloured images in it."""
    folder = tmp_path_factory.mktemp("own")
    write_own_parts(folder)
    own = ("--config-dir", "mine", "model=tiny", "data=stripes", "data.scaling=standardised")
    quick = ("trainer.epochs=1", "trainer.precision=fp32", "trainer.gpus=0", "hydra.run.dir=run")
    done = run_train(*own, *quick, cwd=folder, data_root=mnist_root)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("to", ["onnx", "safetensors"])
def test_a_network_of_ones_own_on_coloured_images_is_exported(own_run: Path, to: str) -> None:
    """All 400 images of its test, standardised channel by channel."""
    run, mine = own_run / "run", own_run / "mine"
    with pytest.raises(ConfigError, match="--config-dir FOLDER"):
        export_network(run, to)
    assert "(N, 32, 32, 3)" in export_network(run, to, config_dir=mine)
    trained = mnist_bench.load(run, mine)
    saved = np.load(run / "predictions.npz")
    images = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), np.uint8)
    expected = trained.predict(images)
    if to == "onnx":
        found = in_onnxruntime(run / "network.onnx", images)
    else:
        with pytest.raises(ConfigError, match="--config-dir FOLDER"):
            mnist_bench.load(run / "network.safetensors")
        found = mnist_bench.load(run / "network.safetensors", mine).predict(images).probabilities
    np.testing.assert_allclose(found, expected.probabilities, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(1), expected.labels)
    assert saved["logits"].shape[1] == found.shape[1]


class Stubborn(nn.Module):
    """What it does depends on what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(784, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.output(images.flatten(1))
        return logits if images.sum() > 0 else -logits


class Fixed(nn.Module):
    """Written for ONNX, it has been made for two images."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(784, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        count = 2 if torch.compiler.is_compiling() else len(images)
        return self.output(images.reshape(count, 784))


class Wavering(nn.Module):
    """It says something else whenever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(784, 10)
        self.asked = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return self.output(images.flatten(1) + self.asked)


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (Stubborn, "cannot be written as ONNX for any number of images"),
        (Fixed, "cannot classify test images|cannot be written as ONNX"),
        (Wavering, r"is not written: .* 1,000 test images is .* away in probability"),
    ],
)
def test_what_is_not_the_network_is_not_left(
    uninterrupted: Path,
    mnist_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: type[nn.Module],
    sentence: str,
) -> None:
    monkeypatch.setenv("MNIST_BENCH_DATA", str(mnist_root))
    known = mnist_bench.load(uninterrupted)
    broken = TrainedNetwork(**{**vars(known), "network": network().eval()})
    monkeypatch.setattr(export, "load", lambda *_: broken)
    (tmp_path / "x.onnx").write_text("something of value")
    with pytest.raises(BenchError, match=sentence) as refusal:
        export_network(uninterrupted, "onnx", tmp_path / "x.onnx", force=True)
    assert "\n" not in str(refusal.value)
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx"]
    assert (tmp_path / "x.onnx").read_text() == "something of value"


@pytest.mark.parametrize(
    ("to", "out", "sentence"),
    [
        ("onnx", "there.onnx", r"there\.onnx is there already: .* --force to replace it"),
        ("onnx", "folder.onnx", "is a folder: name a file"),
        ("onnx", "x.pt", r"--out x\.pt has to end in \.onnx"),
        ("tflite", "x.tflite", "--to tflite is not a format: give onnx or safetensors"),
    ],
)
def test_what_cannot_be_written_is_refused(
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    to: str,
    out: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").write_text("something of value")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ConfigError, match=sentence):
        export_network(uninterrupted, to, Path(out))
    with pytest.raises(ConfigError, match="nowhere is not the folder of a run"):
        export_network(Path("nowhere"), "onnx")
    assert (tmp_path / "there.onnx").read_text() == "something of value"


def test_a_missing_package_is_named(uninterrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name[:4] == "onnx" else True)
    with pytest.raises(ConfigError) as refusal:
        export_network(uninterrupted, "onnx")
    assert str(refusal.value) == (
        "--to onnx needs onnx and onnxruntime and onnxscript, which are not installed: "
        "pip install 'mnist-bench[export]'."
    )


def test_the_example_of_the_page_runs(
    uninterrupted: Path, mnist_root: Path, images: Images, tmp_path: Path
) -> None:
    """Without PyTorch and this package, as the page says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_BENCH_DATA", str(mnist_root))
        export_network(uninterrupted, "onnx", tmp_path / "network.onnx")
    (example,) = re.findall(r"```python\n(import json.*?)```", PAGE.read_text(), re.S)
    np.save(tmp_path / "images.npy", images.test_images[:20].numpy())
    script = (
        "import sys\nsys.modules['torch'] = sys.modules['mnist_bench'] = None\n"
        f"import numpy\nimages = numpy.load('images.npy')\n{example}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    expected = mnist_bench.load(uninterrupted).predict(images.test_images[:20]).labels
    assert done.stdout.splitlines()[-1] == str([str(label) for label in expected])
