"""What is measured on a GPU: the parts with their rows, and how each row is measured.

    python -m benchmarks.gpu.parts PART FOLDER ORIGIN SETTINGS KEY...

measures rows of one part; `benchmarks.gpu` starts it. All behind FOLDER is JSON.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.accuracy import MODELS as ACCURATE
from benchmarks.accuracy import SEEDS as ACCURACY_SEEDS
from benchmarks.gpu.rows import Figures, Key, Origin, measure_rows
from benchmarks.gpu.schedule import Part
from benchmarks.step import ROOT
from mnist_bench.reproduction.published import PUBLISHED

TESTS = ROOT / "tests"
# Seeds of a published training that make it evidence.
SEEDS = 5

# Networks for what need not be known of all nine: a small one, a wide one, a deep one, and the one
# of most weights.
FEW = ("mnist_cnn", "wide5x7_bn", "vgg16", "conv3_dense7744")

# What a row takes as long as none has been measured on the device: by an NVIDIA H200's rows of
# commit e0c4d08, whose `seconds` have a mean of 1.8 for `step`, 3.8 for `precision`, 9.2 for
# `deterministic` and 10.7 for `compile`.
STEP_SECONDS, PRECISION_SECONDS, DETERMINISTIC_SECONDS, COMPILED_SECONDS = 2.0, 4.0, 9.0, 11.0
# Of a part's process: PyTorch's import and CUDA's start; 4 to 5 s.
START_SECONDS = 5.0
TRAINING_SECONDS = {
    "cnn5x5_single": 11.0,
    "mnist_cnn": 13.0,
    "cnn3x3": 12.5,
    "cnn5x5": 12.5,
    "wide3x3": 14.5,
    "wide3x5_bn": 15.0,
    "wide5x7_bn": 16.5,
    "vgg16": 38.0,
    "conv3_dense7744": 26.0,
}
# test_graphs.py took 52 s, and test_cuda_precision.py 56 s with fewer images than it has now;
# `accuracy` has not been measured yet.
TESTS_SECONDS, SPEEDRUN_SECONDS, SAVE_SECONDS, ACCURACY_SECONDS = 55.0, 15.5, 14.5, 90.0


@dataclass(frozen=True)
class Settings:
    """Smaller than this, it is all tried out without a GPU, and the figures mean nothing."""

    rounds: int = 7
    round_seconds: float = 0.1
    seeds: int = 20  # of the speed record
    overrides: Sequence[str] = field(default=())  # of every training


def parts(folder: Path, origin: Origin, settings: Settings) -> list[Part]:
    """All parts; rows that are worth more come first within each."""

    def part(
        name: str, keys: Sequence[Key], seconds: Callable[[Key], float], long: bool = False
    ) -> Part:
        program = [sys.executable, "-m", "benchmarks.gpu.parts"]
        given = [json.dumps(asdict(origin)), json.dumps(asdict(settings))]
        command = [*program, name, str(folder), *given]
        return Part(name, keys, command, seconds, START_SECONDS, long)

    def training(key: Key) -> float:
        return TRAINING_SECONDS[key["experiment"]]

    published = sorted(PUBLISHED, key=TRAINING_SECONDS.__getitem__)
    runs = [{"experiment": name, "seed": seed} for seed in range(SEEDS) for name in published]
    return [
        part("tests", [{"file": name} for name in cuda_tests()], lambda _: TESTS_SECONDS),
        part("step", steps(), lambda _: STEP_SECONDS),
        part("precision", precisions(), lambda _: PRECISION_SECONDS),
        part("deterministic", deterministic(), lambda _: DETERMINISTIC_SECONDS),
        part("compile", compiled(), lambda _: COMPILED_SECONDS),
        part("speedrun", [{"seeds": settings.seeds}], lambda _: SPEEDRUN_SECONDS),
        part("save", [{"save_every": every} for every in (1, 0)], lambda _: SAVE_SECONDS),
        part("training", runs[: len(PUBLISHED)], training),
        part("seeds", runs[len(PUBLISHED) :], training, long=True),
        part("accuracy", accurate(), lambda _: ACCURACY_SECONDS, long=True),
    ]


def step_key(network: str, recipe: str, precision: str, variant: str) -> Key:
    """`recipe`: its `own` (`experiment=NETWORK`), or `adam` in batches of 128 (`model=NETWORK`)."""
    return {"network": network, "recipe": recipe, "precision": precision, "variant": variant}


def steps() -> list[Key]:
    keys = []
    for network in PUBLISHED:
        for variant in ("graph", "without graph", "optimizer not fused"):
            keys.append(step_key(network, "own", "bf16", variant))
        if network == "vgg16":  # whose last maps are of one pixel
            keys.append(step_key(network, "own", "bf16", "without centre tap"))
        for variant in ("graph", "plain PyTorch"):
            keys.append(step_key(network, "adam", "bf16", variant))
    for variant in ("graph", "optimizer not fused"):  # Muon's
        keys.append(step_key("speedrun", "own", "bf16", variant))
    return keys


def precisions() -> list[Key]:
    names = ("fp16", "tf32", "fp32")
    return [step_key(network, "adam", name, "graph") for network in FEW[:3] for name in names]


def deterministic() -> list[Key]:
    return [step_key(name, "adam", "bf16", "deterministic") for name in ("mnist_cnn", "vgg16")]


def compiled() -> list[Key]:
    return [step_key(network, "own", "bf16", "compiled") for network in FEW]


def accurate() -> list[Key]:
    return [{"network": name, "seed": seed} for seed in range(ACCURACY_SEEDS) for name in ACCURATE]


def cuda_tests() -> list[str]:
    """The files with tests that need CUDA."""
    files = sorted(TESTS.rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if "mark.needs_cuda" in file.read_text()]


def main() -> None:
    part, folder, origin, settings, *keys = sys.argv[1:]
    # Imported late: the plan needs none of it.
    from benchmarks.gpu import measures

    ways: dict[str, Callable[[Path, Settings, Key], Figures]] = {
        "tests": measures.tests,
        "step": measures.step,
        "precision": measures.step,
        "deterministic": measures.step,
        "compile": measures.step,
        "speedrun": measures.speedrun,
        "save": measures.save,
        "training": measures.training,
        "seeds": measures.training,
        "accuracy": measures.accuracy,
    }
    os.chdir(ROOT)
    measure = partial(ways[part], Path(folder), Settings(**json.loads(settings)))
    due = [json.loads(key) for key in keys]
    measure_rows(part, Path(folder), due, Origin(**json.loads(origin)), measure)


if __name__ == "__main__":
    main()
