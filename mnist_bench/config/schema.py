"""What can be configured: one dataclass per group of `conf/`, registered as Hydra schemas.

Types are enforced by Hydra when a configuration is composed, ranges (`ranges.py`) by `read.check`.
What has a default here came later than the first saved runs, which go on with it; all others are in
`conf/`. Wherever a group is `Any`, a user's own part may stand in place of ours (`parts.py`). This
module imports nothing heavy, so `--help` answers at once.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from mnist_bench.config.ranges import (
    allowed,
    at_least,
    decays,
    each,
    fraction,
    is_number,
    is_whole,
    not_negative,
    one_or_each,
    one_size_or_two,
    positive,
    whole_for_each,
)

# --- Model ------------------------------------------------------------------------------------


class Padding(Enum):
    valid = "valid"
    same = "same"


class Initializer(Enum):
    glorot_uniform = "glorot_uniform"
    glorot_normal = "glorot_normal"
    he_uniform = "he_uniform"
    he_normal = "he_normal"


@dataclass
class ModelConfig:
    """A convolutional network for small grey images; see `mnist_bench.models.ConvNet`."""

    name: str = MISSING
    channels: list[int] = each(lambda v: v >= 1, "a list of whole numbers of at least 1")
    kernel_size: Any = whole_for_each()
    stride: Any = whole_for_each(default=1)
    crop: int = at_least(0, default=0)
    padding: Padding = MISSING
    pool_after: list[int] = each(lambda v: v >= 1, "a list of layers, counted from 1")
    dense: list[int] = each(lambda v: v >= 1, "a list of whole numbers of at least 1")
    dropout: Any = one_or_each(
        lambda v: is_number(v) and 0 <= v < 1, "a number from 0 to below 1, or a list of them"
    )
    dropout_on_features: bool = MISSING
    batch_norm: bool = MISSING
    conv_batch_norm: bool = False
    initializer: Initializer = MISSING
    output_initializer: Initializer = MISSING
    adam_lr: float = positive(default=1e-3)


# --- Optimizer --------------------------------------------------------------------------------


@dataclass
class OptimizerConfig:
    name: str = MISSING
    lr: float = positive()
    weight_decay: float = not_negative()


@dataclass
class AdamConfig(OptimizerConfig):
    name: str = "adam"
    betas: tuple[float, float] = decays()
    eps: float = not_negative()
    epsilon_hat: bool = MISSING


@dataclass
class AdamWConfig(OptimizerConfig):
    name: str = "adamw"
    betas: tuple[float, float] = decays()
    eps: float = not_negative()


@dataclass
class SGDConfig(OptimizerConfig):
    name: str = "sgd"
    momentum: float = fraction()
    nesterov: bool = MISSING


@dataclass
class RMSpropConfig(OptimizerConfig):
    name: str = "rmsprop"
    alpha: float = fraction()
    eps: float = not_negative()
    momentum: float = fraction()
    eps_inside_sqrt: bool = False


@dataclass
class AdadeltaConfig(OptimizerConfig):
    name: str = "adadelta"
    rho: float = fraction()
    eps: float = not_negative()


@dataclass
class MuonConfig(OptimizerConfig):
    name: str = "muon"
    momentum: float = fraction()
    iterations: int = at_least(1, default=5)
    adam_lr_ratio: float = positive()
    betas: tuple[float, float] = decays()
    eps: float = not_negative()


# --- Scheduler --------------------------------------------------------------------------------


@dataclass
class SchedulerConfig:
    name: str = MISSING


@dataclass
class ConstantConfig(SchedulerConfig):
    name: str = "constant"


@dataclass
class CosineConfig(SchedulerConfig):
    name: str = "cosine"
    final_factor: float = fraction()


@dataclass
class OneCycleConfig(SchedulerConfig):
    name: str = "onecycle"
    warmup_fraction: float = allowed(lambda v: 0 < v < 1, "a number between 0 and 1")
    div_factor: float = allowed(lambda v: v >= 1, "a number of at least 1")
    final_div_factor: float = allowed(lambda v: v >= 1, "a number of at least 1")


@dataclass
class StepConfig(SchedulerConfig):
    name: str = "step"
    step_size: int = at_least(1)
    gamma: float = allowed(lambda v: 0 < v <= 1, "a number above 0 and at most 1")


# --- Data -------------------------------------------------------------------------------------


class Scaling(Enum):
    unit = "unit"
    standardised = "standardised"
    raw = "raw"


class Validation(Enum):
    holdout = "holdout"
    test = "test"


class HoldoutFrom(Enum):
    last = "last"
    first = "first"


@dataclass
class DataConfig:
    name: str = MISSING
    split: str | None = None
    root: str = MISSING
    scaling: Scaling = MISSING
    holdout_from: HoldoutFrom = MISSING
    holdout_size: int | float = allowed(
        lambda v: v >= 0 and (is_whole(v) or v < 1),
        "a number of images, or a fraction of the training images below 1",
    )
    validation: Validation = MISSING
    limit: int | None = allowed(
        lambda v: v is None or v >= 1, "a whole number of at least 1, or null for all images"
    )
    stratified: bool = False
    image_size: Any = one_size_or_two()
    grey: bool = False


@dataclass
class OwnDataConfig(DataConfig):
    """Data that are read by a class of the user's own; `read.to_config` makes it."""

    source: Any = None  # Part


# --- Augmentation -----------------------------------------------------------------------------


@dataclass
class AugmentationConfig:
    """Limits of what is drawn for each training image; see `mnist_bench.data.augmentation`."""

    rotation: float = not_negative(default=0.0)
    translation: float = not_negative(default=0.0)
    scale: float = fraction(default=0.0)
    shear: float = not_negative(default=0.0)
    elastic: float = not_negative(default=0.0)
    smoothness: float = allowed(lambda v: 0 < v < 10, "a number above 0 and below 10", 4.0)
    horizontal_flip: bool = False
    vertical_flip: bool = False
    crop: int = at_least(0, default=0)


# --- Trainer ----------------------------------------------------------------------------------


class Precision(Enum):
    auto = "auto"
    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"
    fp16 = "fp16"


class Kernels(Enum):
    auto = "auto"
    portable = "portable"
    off = "off"


class TestWeights(Enum):
    auto = "auto"
    best = "best"
    last = "last"


@dataclass
class TrainerConfig:
    epochs: int = at_least(1)
    batch_size: int = at_least(1)
    gpus: int | str = allowed(
        lambda v: v == "auto" or (is_whole(v) and v >= 0),
        "auto, 0 for the CPU, or a number of GPUs",
    )
    precision: Precision = MISSING
    compile: bool | str = allowed(
        lambda v: v == "auto" or isinstance(v, bool), "auto, true or false", "auto"
    )
    kernels: Kernels = Kernels.auto
    cuda_graphs: bool = MISSING
    fused_optimizer: bool = True
    deterministic: bool = MISSING
    clip_norm: float | None = allowed(
        lambda v: v is None or v > 0, "a number above 0, or null for no clipping"
    )
    ema_decay: float | None = allowed(
        lambda v: v is None or 0 < v < 1, "a number between 0 and 1, or null for no average", None
    )
    refresh_seconds: float = positive()
    save_every: int = at_least(0)
    figures: bool = True
    early_stopping: int | None = allowed(
        lambda v: v is None or v >= 1, "a whole number of epochs of at least 1, or null", None
    )
    test_weights: TestWeights = MISSING
    max_seconds: float | None = allowed(
        lambda v: v is None or 0 < v < float("inf"), "a number of seconds above 0, or null", None
    )


# --- Loss -------------------------------------------------------------------------------------


class Loss(Enum):
    cross_entropy = "cross_entropy"
    binary_cross_entropy = "binary_cross_entropy"


@dataclass
class LossConfig:
    name: Loss = MISSING


# --- Sweeps -----------------------------------------------------------------------------------


class Keep(Enum):
    all = "all"
    best = "best"
    last = "last"
    none = "none"


@dataclass
class SweepConfig:
    name: str | None = allowed(
        lambda v: v is None or re.fullmatch(r"\w[\w.+=-]*", v) is not None,
        "a name of letters, digits and . _ + = -, or null for the date",
        None,
    )
    dry_run: bool = False
    fail_fast: bool = False
    keep: Keep = Keep.all


# --- The whole --------------------------------------------------------------------------------

SEEDS = 2**32


@dataclass
class TrainConfig:
    model: Any = MISSING  # ModelConfig or Part
    optimizer: Any = MISSING  # one of SCHEMAS or Part
    scheduler: Any = MISSING  # one of SCHEMAS or Part
    data: Any = MISSING  # DataConfig or OwnDataConfig
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: dict[str, Any] = field(default_factory=dict)  # Part, by name
    seed: int = allowed(lambda v: 0 <= v < SEEDS, f"a whole number from 0 to {SEEDS - 1}")
    loss: Any = MISSING  # LossConfig or Part
    label_smoothing: float = fraction(default=0.0)
    resume: str | None = None
    imported_from: str | None = None
    sweep: SweepConfig = field(default_factory=SweepConfig)


# The groups with one schema, and those with one for each choice.
GROUPS: dict[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "augmentation": AugmentationConfig,
    "loss": LossConfig,
}
SCHEMAS: dict[str, dict[str, type]] = {
    "optimizer": {
        c.name: c
        for c in (AdamConfig, AdamWConfig, SGDConfig, RMSpropConfig, AdadeltaConfig, MuonConfig)
    },
    "scheduler": {c.name: c for c in (ConstantConfig, CosineConfig, OneCycleConfig, StepConfig)},
}


def register_schemas() -> None:
    """Make the schemas known to Hydra.

    `conf/` refers to them as `/schema: <group>` or `/schema/<group>: <name>`.
    """
    OmegaConf.register_new_resolver(
        "first", lambda *values: next(filter(None, values)), replace=True
    )
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    for name, schema in GROUPS.items():
        store.store(group="schema", name=name, node=schema)
    for group, schemas in SCHEMAS.items():
        for name, schema in schemas.items():
            store.store(group=f"schema/{group}", name=name, node=schema)
