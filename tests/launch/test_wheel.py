"""What a user has who installs the wheel: no checkout, another folder, and every verb works."""

import itertools
import json
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.own_parts import write_own_parts
from tests.support.train_command import REPOSITORY, environment

TINY = (
    *("data.limit=200", "trainer.epochs=1", "trainer.precision=fp32", "trainer.gpus=0"),
    *("model.channels=[4,4]", "model.dense=[8]"),
)


def pip(*arguments: str, cwd: Path) -> None:
    """Run pip without any network; torch brings the setuptools that builds."""
    command = [sys.executable, "-m", "pip", *arguments, "--no-deps", "--no-index", "--quiet"]
    subprocess.run(command, cwd=cwd, check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the files that git knows, in a folder of their own."""
    folder = tmp_path_factory.mktemp("build")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, check=True).stdout
    for name in names.decode().rstrip("\0").split("\0"):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    pip("wheel", ".", "--no-build-isolation", "--wheel-dir", "dist", cwd=folder)
    (built,) = (folder / "dist").glob("mnist_bench-*.whl")
    return built


def test_a_wheel_has_every_file_of_the_package_and_of_conf(wheel: Path) -> None:
    expected = {
        str(path.relative_to(REPOSITORY))
        for package in ("mnist_bench", "hydra_plugins")
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".md")
    }
    conf = REPOSITORY / "conf"
    expected |= {f"mnist_bench/conf/{path.relative_to(conf)}" for path in conf.rglob("*.yaml")}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`mnist-bench` as a wheel installs it, in an environment that borrows this one's packages."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    scheme = {"base": str(home), "platbase": str(home)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=scheme))
    python = Path(sysconfig.get_path("scripts", "venv", vars=scheme)) / "python"
    pip("--python", str(python), "install", str(wheel), cwd=home)
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.with_name("mnist-bench")


def call(
    program: Path, *arguments: str, cwd: Path, mnist_root: Path
) -> subprocess.CompletedProcess[str]:
    variables = environment(mnist_root)
    variables.pop("PYTHONPATH", None)
    return subprocess.run(
        [program, *arguments], cwd=cwd, env=variables, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_the_wheel_is_what_runs(program: Path, tmp_path: Path, mnist_root: Path) -> None:
    done = call(program, "train", "--info", "searchpath", cwd=tmp_path, mnist_root=mnist_root)
    assert done.returncode == 0, done.stderr
    assert f"file://{program.parents[1]}" in done.stdout and str(REPOSITORY) not in done.stdout
    helped = call(program, "train", "--help", cwd=tmp_path, mnist_root=mnist_root)
    assert "mnist-bench train" in helped.stdout and "wide5x7_bn" in helped.stdout
    refused = call(program, "train", "model=lenet", cwd=tmp_path, mnist_root=mnist_root)
    assert refused.returncode == 1
    assert refused.stderr.startswith("model=lenet is not there: choose one of cnn3x3, ")
    assert list(tmp_path.iterdir()) == []
    trained = call(
        program, "train", *TINY, "hydra.run.dir=run", cwd=tmp_path, mnist_root=mnist_root
    )
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "run" / "summary.json").is_file()


@pytest.mark.slow
def test_it_trains_sweeps_resumes_and_exchanges_weights(
    program: Path, tmp_path: Path, mnist_root: Path
) -> None:
    def does(*arguments: str) -> None:
        done = call(program, *arguments, cwd=tmp_path, mnist_root=mnist_root)
        assert done.returncode == 0, done.stderr

    does("train", *TINY, "hydra.run.dir=run")
    does("train", "resume=run", "trainer.epochs=2")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["epochs"] == 2
    does("train", "-m", "seed=0,1", *TINY, "hydra.sweep.dir=sweep")
    assert {path.parent.name for path in tmp_path.glob("sweep/*/summary.json")} == {
        *("seed=0", "seed=1")
    }
    does("export-keras", "run", "run.keras")
    does("import-keras", "run.keras", "--model", "mnist_cnn", "--out", "imported", *TINY)
    summaries = [
        json.loads((tmp_path / name / "summary.json").read_text()) for name in ("run", "imported")
    ]
    assert summaries[1]["test_errors"] == summaries[0]["test_errors"]


@pytest.mark.slow
def test_own_network_images_optimizer_and_logger_need_no_edit_of_the_package(
    program: Path, tmp_path: Path, mnist_root: Path
) -> None:
    """Seven classes of 32 x 32 pixels in colour, as PNG files: swept, killed, resumed and used."""
    write_own_parts(tmp_path)
    draw = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 5)):
        for label, number in itertools.product(range(7), range(count)):
            path = tmp_path / "images" / part / f"class{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = draw.integers(0, 30, (32, 32, 3)) + 30 * label
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    own = ("--config-dir", "mine", "model=tiny", "data=image_folder", "data.root=images")
    own += ("optimizer=nadam", "logger=lines", "trainer.gpus=0", "trainer.precision=fp32")

    def does(*arguments: str) -> None:
        done = call(program, "train", *arguments, cwd=tmp_path, mnist_root=mnist_root)
        assert done.returncode == 0, done.stderr

    does("-m", *own, "model.width=4,8", "trainer.epochs=2", "hydra.sweep.dir=sweep")
    for width in (4, 8):
        summary = json.loads((tmp_path / f"sweep/model.width={width}/summary.json").read_text())
        assert (summary["config"]["model.width"], summary["test_images"]) == (width, 35)

    whole = (*own, "trainer.epochs=30", "trainer.batch_size=16")
    does(*whole, "hydra.run.dir=whole")
    variables = environment(mnist_root, PYTHONUNBUFFERED="1")
    with subprocess.Popen(
        [program, "train", *whole, "hydra.run.dir=killed"],
        cwd=tmp_path,
        env=variables,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if b"epoch  3/30" in line)
        process.kill()
    does("--config-dir", "mine", "resume=killed")
    logits = [np.load(tmp_path / run / "predictions.npz")["logits"] for run in ("whole", "killed")]
    assert np.array_equal(*logits)
    assert len((tmp_path / "whole" / "lines.txt").read_text().splitlines()) == 30

    code = (
        "import mnist_bench, numpy as np\n"
        "from PIL import Image\n"
        "network = mnist_bench.load('whole', config_dir='mine')\n"
        "files = [f'images/test/class{label}/0.png' for label in range(7)]\n"
        "images = np.stack([np.asarray(Image.open(file)) for file in files])\n"
        "print([network.class_names[i] for i in network.predict(images).labels])"
    )
    used = call(program.with_name("python"), "-c", code, cwd=tmp_path, mnist_root=mnist_root)
    assert used.stdout.strip() == str([f"class{label}" for label in range(7)]), used.stderr


@pytest.mark.slow
def test_a_reproduction_starts_its_trainings(
    program: Path, tmp_path: Path, mnist_root: Path
) -> None:
    """The child is `mnist-bench train` of the same package."""
    code = (
        "from pathlib import Path\n"
        "from mnist_bench.reproduction.reproduce import reproduce\n"
        f"raise SystemExit(reproduce(['cnn5x5_single'], 1, gpus='0', overrides={list(TINY)!r}))"
    )
    done = call(program.with_name("python"), "-c", code, cwd=tmp_path, mnist_root=mnist_root)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "outputs" / "reproduction" / "cnn5x5_single" / "seed=0"
    assert json.loads((run / "summary.json").read_text())["status"] == "completed"


def test_a_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    build = f"from setuptools import build_meta\nbuild_meta.build_sdist({str(tmp_path)!r})"
    subprocess.run(
        [sys.executable, "-c", build], cwd=wheel.parents[1], check=True, stdout=subprocess.DEVNULL
    )
    (source,) = tmp_path.glob("mnist_bench-*.tar.gz")
    pip("wheel", str(source), "--no-build-isolation", "--wheel-dir", str(tmp_path), cwd=tmp_path)
    (built,) = tmp_path.glob("mnist_bench-*.whl")
    contents = [
        {info.filename: info.CRC for info in zipfile.ZipFile(file).infolist()}
        for file in (wheel, built)
    ]
    assert contents[0].keys() == contents[1].keys()
    differing = {name for name in contents[0] if contents[0][name] != contents[1][name]}
    assert differing <= {name for name in differing if name.endswith("/RECORD")}
