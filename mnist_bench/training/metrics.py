"""The one table of what is measured of a network's answers. N images, K classes.

A metric added to `METRICS` is a column of metrics.csv, a key of summary.json and a tag of the
loggers; nothing else needs to know of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_bench.config.schema import Loss, LossConfig

# From logits (N, K) and labels (N,) to a 0-d tensor.
Measure = Callable[[Tensor, Tensor], Tensor]


def count_correct(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """Return how many images have their largest logit at their label: a 0-d integer tensor."""
    return (logits_NK.argmax(1) == labels_N).sum()


def count_binary_correct(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """Return how many of the N x K softmax outputs lie on the right side of 0.5: 0-d, integer.

    What Keras reports as accuracy when a network is compiled with binary cross-entropy.
    """
    targets_NK = F.one_hot(labels_N, logits_NK.shape[1]).bool()
    return ((logits_NK.float().softmax(1) > 0.5) == targets_NK).sum()


def top2_accuracy(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """Return the share of the images whose label has one of the two largest logits."""
    top_N2 = logits_NK.topk(min(2, logits_NK.shape[1]), 1).indices
    return (top_N2 == labels_N[:, None]).any(1).double().mean()


def balanced_accuracy(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """Return the mean over the classes there are of the share of a class's images that are right.

    As scikit-learn's `balanced_accuracy_score`; it differs from the accuracy where some classes
    have more images than others.
    """
    classes = logits_NK.shape[1]
    right_N = logits_NK.argmax(1) == labels_N
    images_K = torch.bincount(labels_N, minlength=classes).double()
    right_K = torch.bincount(labels_N, weights=right_N.double(), minlength=classes)
    there = images_K > 0
    return (right_K[there] / images_K[there]).mean()


def _always(loss: Any) -> bool:
    return True


def _is_binary(loss: Any) -> bool:
    return isinstance(loss, LossConfig) and loss.name is Loss.binary_cross_entropy


@dataclass(frozen=True)
class Metric:
    """What is measured, of which parts of the data.

    A `running` metric counts: it is summed over the batches, on the device and within CUDA graphs,
    and divided at the end by the images, or `per_output` by the images times K. Others measure the
    logits of a whole set at once, on the CPU, and so are not for training.
    """

    measure: Measure
    parts: tuple[str, ...] = ("train", "val", "test")
    running: bool = False
    per_output: bool = False
    # Whether a run with this loss (the configuration's) has it.
    applies: Callable[[Any], bool] = _always


METRICS: dict[str, Metric] = {
    "accuracy": Metric(count_correct, running=True),
    "binary_accuracy": Metric(
        count_binary_correct, running=True, per_output=True, applies=_is_binary
    ),
    "balanced_accuracy": Metric(balanced_accuracy, parts=("val", "test")),
    "top2_accuracy": Metric(top2_accuracy, parts=("test",)),
}


def metrics_for(loss: Any) -> dict[str, Metric]:
    """Return the metrics of a run with this loss, by name."""
    return {name: metric for name, metric in METRICS.items() if metric.applies(loss)}


def measure_all(
    metrics: dict[str, Metric], part: str, logits_NK: Tensor, labels_N: Tensor
) -> dict[str, float]:
    """Return the metrics of a whole set that belong to `part`, by name."""
    return {
        name: metric.measure(logits_NK, labels_N).item()
        for name, metric in metrics.items()
        if not metric.running and part in metric.parts
    }


def tag(column: str) -> str:
    """Return a column's name as loggers show it: `val_top2_accuracy` as `top2_accuracy/val`."""
    part, _, name = column.partition("_")
    return f"{name}/{part}" if part in ("train", "val", "test") else column


class Totals:
    """Running sums of loss and counts, kept on the device so that no step waits for it.

    `metrics` are those of the table that are running.
    """

    def __init__(self, device: torch.device, metrics: Mapping[str, Metric]):
        self.metrics = {name: metric for name, metric in metrics.items() if metric.running}
        self.sums = torch.zeros(1 + len(self.metrics), dtype=torch.float64, device=device)
        self.outputs_per_image = 0
        self.images = 0

    def reset(self) -> None:
        self.sums.zero_()
        self.images = 0

    def add(self, loss: Tensor, logits_NK: Tensor, labels_N: Tensor) -> None:
        """Add a batch to the sums; `images` is for the caller to count."""
        count, self.outputs_per_image = logits_NK.shape
        loss_sum, *sums = self.sums.unbind()
        loss_sum.add_(loss, alpha=count)
        for total, metric in zip(sums, self.metrics.values(), strict=True):
            total.add_(metric.measure(logits_NK, labels_N))

    def averages(self) -> dict[str, float]:
        """Return the means over the images seen, by name, `loss` first; waits for the device."""
        loss, *means = (self.sums / self.images).tolist()
        found = {"loss": loss}
        for (name, metric), mean in zip(self.metrics.items(), means, strict=True):
            found[name] = mean / self.outputs_per_image if metric.per_output else mean
        return found

    def state_dict(self) -> dict[str, Tensor | int]:
        return {
            "sums": self.sums,
            "outputs_per_image": self.outputs_per_image,
            "images": self.images,
        }

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        self.sums.copy_(torch.as_tensor(state["sums"]))
        self.outputs_per_image = int(state["outputs_per_image"])
        self.images = int(state["images"])
