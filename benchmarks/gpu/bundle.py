"""A folder for a machine with a GPU and without network: `make bundle`.

    python -m benchmarks.gpu.bundle FOLDER REQUIREMENT...

leaves in FOLDER the project as it is committed, the rows of benchmarks/results as they are, MNIST,
a wheel of each requirement in the version of constraints.txt, and run.sh, which unpacks it all and
measures. What that machine has already, run.sh does not install.
"""

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu.rows import FILE
from benchmarks.step import ROOT
from mnist_bench.data.datasets import MNIST
from mnist_bench.data.fetch import ensure_files
from mnist_bench.loggers.console import info, print_error

PYTHON_VERSION = "3.12"
PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("requirements", nargs="*", help="such as hydra-core or h5py==3.16.0")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if folder.exists():
        if any(folder.iterdir()) and not (folder / "project.tar.gz").exists():
            parser.error(f"{folder} is no bundle, and would be deleted: choose another folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    add_project(folder)
    add_mnist(folder / "mnist", Path(os.environ.get("MNIST_BENCH_DATA", ROOT / "data")))
    (folder / "wheels").mkdir()
    for requirement in arguments.requirements:
        add_wheel(folder / "wheels", requirement)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    info(f"{folder}: {size / 2**20:.1f} MiB; on the machine: bash run.sh FOLDER --plan")


def add_project(folder: Path) -> None:
    """The commit, and what was measured since."""
    if changes := git(
        "status", "--porcelain", "--untracked-files=no", "--", ":!benchmarks/results"
    ):
        print_error(f"What is not committed is not in the bundle:\n{changes}")
    (folder / "commit").write_text(git("rev-parse", "HEAD") + "\n")
    git("archive", "--format=tar.gz", f"--output={folder / 'project.tar.gz'}", "HEAD")
    shutil.copy(Path(__file__).with_name("run.sh"), folder)
    (folder / "results").mkdir()
    results = ROOT / "benchmarks" / "results"
    for rows in results.glob(f"*/{FILE}"):
        copy = folder / "results" / rows.relative_to(results)
        copy.parent.mkdir()
        shutil.copy(rows, copy)


def git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def add_mnist(folder: Path, root: Path) -> None:
    ensure_files(MNIST, root, info)
    folder.mkdir()
    for file in MNIST.files:
        content = (MNIST.raw_folder(root) / file.name).read_bytes()
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(content, 9, mtime=0))


def add_wheel(folder: Path, requirement: str) -> None:
    """Download a wheel for that machine, or build one of pure Python if there is only source."""
    pip = [sys.executable, "-m", "pip"]
    pinned = ["--quiet", "--no-deps", "--constraint", str(ROOT / "constraints.txt")]
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    target = ["--only-binary=:all:", f"--python-version={PYTHON_VERSION}", *platforms]
    download = [*pip, "download", *pinned, *target, "--dest", str(folder), requirement]
    if subprocess.run(download, capture_output=True).returncode == 0:
        return
    with tempfile.TemporaryDirectory() as built:
        subprocess.run([*pip, "wheel", *pinned, "--wheel-dir", built, requirement], check=True)
        (wheel,) = Path(built).glob("*.whl")
        if not wheel.name.endswith("-none-any.whl"):
            sys.exit(f"{requirement} has no wheel for Python {PYTHON_VERSION} on Linux, x86-64.")
        shutil.copy(wheel, folder)


if __name__ == "__main__":
    main()
