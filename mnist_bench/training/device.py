"""Where a run computes, and in what precision."""

import ctypes
import os
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from mnist_bench.config.schema import Precision, TrainerConfig
from mnist_bench.errors import ConfigError

# The types of automatic mixed precision.
MIXED = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}


@dataclass(frozen=True)
class Placement:
    """A device and a precision that it supports; `precision` is never `auto`."""

    device: torch.device
    precision: Precision

    @property
    def device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        name = torch.cpu.get_capabilities().get("cpu_name") or platform.machine()
        threads = torch.get_num_threads()
        return f"{name}, {threads} thread{'s' * (threads != 1)}"

    def autocast(self) -> AbstractContextManager[None]:
        """Automatic mixed precision for bf16 and fp16; nothing for fp32 and tf32."""
        dtype = MIXED.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, which fp16 needs; it does nothing in other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision is Precision.fp16)

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, in channels_last layout.

        channels_last is the faster layout on a CPU for most of the networks
        (`benchmarks/results/` has both), and is what tensor cores compute in. PyTorch has it for
        weights of up to four dimensions: a network with others stays as it is.
        """
        placed = network.to(self.device)
        if any(parameter.ndim > 4 for parameter in network.parameters()):
            return placed
        return placed.to(memory_format=torch.channels_last)

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def find_placement(config: TrainerConfig) -> Placement:
    """Resolve `trainer.gpus` and `trainer.precision` on this machine.

    Raises:
        ConfigError: the machine has not got what is asked for.
    """
    gpus = config.gpus
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus == "auto":
        gpus = min(available, 1)
    assert isinstance(gpus, int)
    if gpus > available:
        raise ConfigError(
            f"trainer.gpus={gpus} asks for CUDA, and PyTorch finds {available or 'no'} CUDA "
            f"device{'s' * (available > 1)} here: use trainer.gpus=0 to train on the CPU."
        )
    if gpus > 1:
        raise ConfigError(
            f"trainer.gpus={gpus} is not supported yet: use trainer.gpus=1, "
            f"several times side by side if there are several trainings."
        )
    device = torch.device("cuda", 0) if gpus else torch.device("cpu")
    return Placement(device, _find_precision(config.precision, device))


def _find_precision(precision: Precision, device: torch.device) -> Precision:
    if device.type == "cuda":
        if precision is Precision.auto:
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return Precision.bf16 if native else Precision.fp16
        if precision is Precision.tf32 and torch.cuda.get_device_capability(device) < (8, 0):
            raise ConfigError(
                f"trainer.precision=tf32 needs a GPU of NVIDIA's Ampere generation or a later one, "
                f"and {torch.cuda.get_device_name(device)} is older: use fp32 or fp16."
            )
        return precision
    if precision in (Precision.fp16, Precision.tf32):
        raise ConfigError(
            f"trainer.precision={precision.name} needs a CUDA device: use fp32, bf16 or auto on "
            f"the CPU."
        )
    if precision is Precision.auto:
        return Precision.bf16 if _cpu_computes_bf16() else Precision.fp32
    return precision


def _cpu_computes_bf16() -> bool:
    """Whether the processor has bf16 instructions (AVX-512 BF16, AMX, Arm's); emulation is slow."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(key) for key in ("avx512_bf16", "amx_bf16", "bf16"))


def set_up_torch(seed: int, precision: Precision, deterministic: bool) -> None:
    """Seed initial weights and dropout, and choose kernels.

    fp32 means fp32: TF32, cuDNN's default for convolutions, is for `tf32` alone. cuDNN chooses by
    rules of thumb, except when a training warms up (`graphs.py`).
    """
    allowed = precision is Precision.tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.manual_seed(seed)
    if deterministic:
        # What cuBLAS asks for; https://docs.nvidia.com/cuda/cublas/#results-reproducibility
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    # Every tensor that is made would be filled first: half again as many kernels in a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def keep_freed_memory() -> None:
    """Have the C library keep what PyTorch frees on the CPU, for the next step to take again.

    By default glibc gives large blocks back to the system, and each step pays for every page of
    its activations anew: `benchmarks/results` has the difference. Nothing happens elsewhere.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 64 * 2**20)


# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
