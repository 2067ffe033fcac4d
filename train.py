"""Train one network, or with -m a sweep of them: `python train.py --help`."""

import os
import signal
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_bench.config.explain import explain
from mnist_bench.config.read import to_config
from mnist_bench.config.schema import register_schemas
from mnist_bench.errors import BenchError

register_schemas()


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(composed: DictConfig) -> None:
    from mnist_bench.loggers.console import complain
    from mnist_bench.runs.session import carry_out  # PyTorch: seconds that --help need not wait for

    job = HydraConfig.get()
    try:
        carry_out(to_config(composed, job.runtime.choices), Path(job.runtime.output_dir))
    except Exception as error:
        if isinstance(error, BenchError):
            complain(str(error))
            if job.mode is RunMode.RUN:
                sys.exit(1)
        elif job.mode is RunMode.MULTIRUN:
            complain(f"{type(error).__name__}: {error}")
        raise  # the other runs of a sweep go on, and then it is told again


if __name__ == "__main__":
    # Errors come through to here, and leave as one sentence if they are the user's.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        main()
    except BenchError as error:
        sys.exit(str(error))
    except HydraException as error:
        sys.exit(explain(error))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
