"""Whoever trains a network in `benchmarks.throughput`, each in a process of its own.

    python -m benchmarks.contenders keras_tensorflow mnist_cnn fp32 128

loads MNIST, builds the network, and then trains as many steps as each line of its input says,
answering with the seconds that they took. Everyone trains with Adam on shuffled batches.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.step import in_plain_layers
from mnist_bench.config.compose import compose
from mnist_bench.config.read import to_config
from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.splits import Splits
from mnist_bench.exchange.keras.layers import to_keras
from mnist_bench.models import build_network
from mnist_bench.runs.prepare import prepare
from mnist_bench.training.device import find_placement, keep_freed_memory
from mnist_bench.training.graphs import Stepper
from mnist_bench.training.learner import build_learner

# Trains so many steps and returns the seconds.
Train = Callable[[int], float]


def ours(config: TrainConfig, splits: Splits) -> Train:
    """The learner of `train.py`, gathering each batch from the uint8 images."""
    placement = find_placement(config.trainer)
    keep_freed_memory()
    splits = splits.to(placement.device)
    learner = build_learner(config, placement, splits)
    stepper = Stepper(learner, splits.train, learner.new_totals())
    count, size = len(splits.train), config.trainer.batch_size
    stepper.warm_up([size])

    def train(steps: int) -> float:
        placement.synchronize()
        start = time.perf_counter()
        order = torch.randperm(count, device=placement.device)[: steps * size]
        for batch in order.split(size):
            stepper.step(batch)
        placement.synchronize()
        return time.perf_counter() - start

    return train


def plain(config: TrainConfig, splits: Splits) -> Train:
    """The loop of PyTorch's own MNIST example: a DataLoader, the default layout, no fusing."""
    device, dtype = find_placement(config.trainer).device, _amp_dtype(config)
    network = _default_layout(config).to(device).train()
    optimizer = torch.optim.Adam(network.parameters())
    batches = _batches(config, splits)

    def train(steps: int) -> float:
        start = time.perf_counter()
        for _, (images, labels) in zip(range(steps), batches, strict=False):
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                loss = F.cross_entropy(network(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return train


def lightning(config: TrainConfig, splits: Splits) -> Train:
    """The same by Lightning's `Trainer.fit`, without its loggers, checkpoints and bars."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = _default_layout(config)

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            return F.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    class Clock(lightning.Callback):
        seconds = 0.0

        def on_train_epoch_start(self, *_: Any) -> None:
            self.start = time.perf_counter()

        def on_train_epoch_end(self, *_: Any) -> None:
            self.seconds = time.perf_counter() - self.start

    module, clock, batches = Module(), Clock(), _batches(config, splits)

    def train(steps: int) -> float:
        trainer = lightning.Trainer(
            max_epochs=1,
            limit_train_batches=steps,
            precision="bf16-mixed" if _amp_dtype(config) else "32-true",
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, batches)
        return clock.seconds

    return train


def keras(config: TrainConfig, splits: Splits, jit_compile: bool | str = "auto") -> Train:
    """`model.fit` on the back end that `KERAS_BACKEND` names."""
    import keras

    if _amp_dtype(config):
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    layers: list[Any] = [keras.Input((28, 28, 1))]
    for layer in to_keras(_network(config)):
        # Mixed precision keeps the softmax in float32, as Keras advises.
        last = {"dtype": "float32"} if layer.settings.get("activation") == "softmax" else {}
        layers.append(getattr(keras.layers, layer.kind)(**layer.settings, **last))
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=jit_compile)
    images = splits.scaling(splits.train.images).permute(0, 2, 3, 1).numpy()
    labels = splits.train.labels.numpy()

    class Clock(keras.callbacks.Callback):
        seconds = 0.0

        def on_epoch_begin(self, *_: Any) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, *_: Any) -> None:
            self.seconds = time.perf_counter() - self.start

    clock, size = Clock(), config.trainer.batch_size

    def train(steps: int) -> float:
        count = steps * size
        model.fit(images[:count], labels[:count], batch_size=size, verbose=0, callbacks=[clock])
        return clock.seconds

    return train


def keras_with_xla(config: TrainConfig, splits: Splits) -> Train:
    return keras(config, splits, jit_compile=True)


CONTENDERS: dict[str, Callable[[TrainConfig, Splits], Train]] = {
    "ours": ours,
    "plain": plain,
    "lightning": lightning,
    "keras_tensorflow": keras,
    "keras_tensorflow_xla": keras_with_xla,
    "keras_jax": keras,
    "keras_torch": keras,
}


def _network(config: TrainConfig) -> nn.Module:
    torch.manual_seed(config.seed)
    return build_network(config.model)


def _default_layout(config: TrainConfig) -> nn.Module:
    return in_plain_layers(_network(config)).to(memory_format=torch.contiguous_format)


def _amp_dtype(config: TrainConfig) -> torch.dtype | None:
    return {"fp32": None, "bf16": torch.bfloat16}[config.trainer.precision.name]


def _batches(config: TrainConfig, splits: Splits) -> torch.utils.data.DataLoader[Any]:
    images = splits.scaling(splits.train.images)
    dataset = torch.utils.data.TensorDataset(images, splits.train.labels)
    return torch.utils.data.DataLoader(dataset, config.trainer.batch_size, shuffle=True)


def main() -> None:
    name, model, precision, batch_size = sys.argv[1:]
    if name.startswith("keras_"):
        os.environ["KERAS_BACKEND"] = name.split("_")[1]
    overrides = [f"model={model}", f"trainer.precision={precision}"]
    config = to_config(compose([*overrides, f"trainer.batch_size={batch_size}"])[0])
    train = CONTENDERS[name](config, prepare(config, lambda _: None).splits)
    print("ready", flush=True)
    for line in sys.stdin:
        print(train(int(line)), flush=True)


if __name__ == "__main__":
    main()
