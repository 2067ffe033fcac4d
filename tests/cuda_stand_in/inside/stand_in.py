"""The Python half of the stand-in, and what it tells at the end; see ../README.md."""

import atexit
import ctypes
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch

_library = ctypes.CDLL("libcuda.so.1")  # preloaded; see ../runtime/record.cpp
_library.stand_in_count.restype = ctypes.c_long
_library.stand_in_read.argtypes = [
    ctypes.c_long,
    *[ctypes.POINTER(ctypes.c_int)] * 2,
    *[ctypes.POINTER(ctypes.c_char_p)] * 2,
]
_library.stand_in_enqueue.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]


class Record(NamedTuple):
    """One thing that was asked of the device."""

    capture: int  # the number of the capture that it is part of; 0: of none, it was done
    stream: int
    kind: str  # see ../runtime/state.h
    name: str


def records() -> list[Record]:
    """Return all that was recorded so far, in order."""
    capture, stream = ctypes.c_int(), ctypes.c_int()
    kind, name = ctypes.c_char_p(), ctypes.c_char_p()
    all_records = []
    for at in range(_library.stand_in_count()):
        _library.stand_in_read(at, capture, stream, kind, name)
        assert kind.value is not None and name.value is not None
        record = Record(capture.value, stream.value, kind.value.decode(), name.value.decode())
        all_records.append(record)
    return all_records


def clear() -> None:
    """Forget what was recorded so far."""
    _library.stand_in_clear()


def enqueue(kind: str, name: str) -> None:
    """Record work on the current stream, and capture it if that is captured."""
    stream = torch.cuda.current_stream().cuda_stream
    _library.stand_in_enqueue(stream, kind.encode(), name.encode())


def capture() -> int:
    """Return the number of the capture that is under way, on whatever stream; 0 if none is."""
    return int(_library.stand_in_capture())


def install() -> None:
    """Put convolutions in cuDNN's place, and report when Python ends."""
    import convolutions

    convolutions.install()
    _compare_on_the_host()
    # Taken out of the environment: the report is of this process, not of those that it starts.
    path = os.environ.pop("CUDA_STAND_IN_REPORT", None)
    atexit.register(_report, None if path is None else Path(path), os.getpid())


def _compare_on_the_host() -> None:
    """Compare what is on the device as the zeros that reading it gives.

    PyTorch's optimizers check learning rates so, tests compare tensors, and the kernel that does
    nothing would make even 0 <= 0 false.
    """

    def on_host(compare: Any, any_shape: bool) -> Any:
        def compare_zeros(one: torch.Tensor, other: Any) -> Any:
            if one.is_cuda and not capture() and (any_shape or one.ndim == 0):
                one, other = one.cpu(), other.cpu() if isinstance(other, torch.Tensor) else other
            return compare(one, other)

        return compare_zeros

    for name in ("__lt__", "__le__", "__gt__", "__ge__"):
        setattr(torch.Tensor, name, on_host(getattr(torch.Tensor, name), any_shape=False))
    torch.equal = on_host(torch.equal, any_shape=True)


def _report(path: Path | None, process: int) -> None:
    """Write what was recorded to a file as JSON, or sum it up on the screen."""
    if process != os.getpid() or not torch.cuda.is_initialized():  # forked, or CUDA was not used
        return
    if path is None:
        print(summary(), file=sys.stderr)
        return
    import convolutions

    seed, offset = torch.cuda.get_rng_state().view(torch.int64).tolist()
    report = {
        "records": [one._asdict() for one in records()],
        "convolutions": [one._asdict() for one in convolutions.seen],
        "generator": {"seed": seed, "offset": offset},
    }
    path.write_text(json.dumps(report))


def summary() -> str:
    """Return a few lines about what was recorded so far."""
    found = records()
    outside = Counter(record.kind for record in found if record.capture == 0)
    nodes = Counter(record.capture for record in found if record.kind != "forbidden")
    launches = Counter(int(record.name) for record in found if record.kind == "graph")
    forbidden = Counter(record.name for record in found if record.kind == "forbidden")
    return "\n".join(
        [
            "stand-in, outside graphs: " + ", ".join(f"{n} {kind}" for kind, n in outside.items()),
            *(
                f"  graph {number}: {nodes[number]} nodes, launched {launches[number]} times"
                for number in sorted(nodes.keys() - {0})
            ),
            *(f"  forbidden in a capture, {n} times: {what}" for what, n in forbidden.items()),
        ]
    )
