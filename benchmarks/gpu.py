"""All that waits for a GPU, in one command: `python -m benchmarks.gpu [FOLDER]`.

Steps of all nine networks in bf16, fp16 and fp32 beside plain PyTorch, and VGG16 trained from its
defaults. Results go to FOLDER (benchmarks/results by default); it takes a few minutes.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.step import ROOT, file_name_part


def run_python(*arguments: str) -> None:
    if subprocess.run([sys.executable, *arguments], cwd=ROOT).returncode != 0:
        sys.exit(f"python {' '.join(arguments)} has failed, and with it the GPU benchmark.")


def train_vgg16(folder: Path) -> None:
    """Train on the GPU with mixed precision and keep the run's summary."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "vgg16"
        run_python("train.py", "model=vgg16", "trainer.gpus=1", f"hydra.run.dir={run}")
        summary = json.loads((run / "summary.json").read_text())
    path = folder / f"vgg16-{file_name_part(summary['device'])}.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "benchmarks" / "results").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    train_vgg16(folder)
    run_python(
        "-m", "benchmarks.step", "--precision", "bf16", "fp16", "fp32", "--write", str(folder)
    )


if __name__ == "__main__":
    main()
