"""What a machine refuses in the middle of a run, in one sentence: a file, or memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mnist_bench.config.schema import TrainConfig
from mnist_bench.errors import OutOfMemory

# How PyTorch, its libraries and the system say it, where no class of its own does.
OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory"),
    *("bad_alloc", "ALLOC_FAILED"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the memory of the machine, or of its GPU, is too small."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(
        words in str(error) for words in OUT_OF_MEMORY
    )


@contextmanager
def naming_the_batch(config: TrainConfig) -> Iterator[None]:
    """Tell what to make smaller where the memory does not suffice.

    Raises:
        OutOfMemory: names the batch size. The error that says it first is its cause.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        on_gpu = isinstance(error, torch.OutOfMemoryError) or "CU" in str(error)
        where = "the GPU" if on_gpu else "this machine"
        raise OutOfMemory(
            f"The memory of {where} does not suffice for this network with "
            f"trainer.batch_size={config.trainer.batch_size}: lower it, or data.limit if the "
            f"images themselves do not fit."
        ) from error
