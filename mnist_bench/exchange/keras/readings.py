"""What a file of weights does not tell: how pixels were scaled, and how a map was flattened.

Each way is tried on test images, and the one that fits better than the one that was asked for is
named.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from mnist_bench.config.schema import Scaling
from mnist_bench.data.splits import ImageSet, PixelScaling, Splits
from mnist_bench.errors import DataError
from mnist_bench.exchange.keras.layers import flattens_a_map, reorder_flattened
from mnist_bench.models import ConvNet

TRIED_IMAGES = 500
# By how many standard deviations of their difference one way has to have fewer errors.
CLEARLY = 3


@dataclass(frozen=True)
class Reading:
    """How a file is read: the scaling of pixels, and whether its maps are flattened channels first.

    `errors` is how many of `images` test images it gets wrong, `asked` how many as was asked for.
    """

    scaling: Scaling
    channels_first: bool
    errors: int
    images: int
    asked: int = 0

    @property
    def options(self) -> str:
        """What import-keras is told it by."""
        order = " --flatten channels_first" if self.channels_first else ""
        return f"data.scaling={self.scaling.name}{order}"

    def __str__(self) -> str:
        return (
            f"with {self.options} it has {self.errors} errors in {self.images} test images, and "
            f"{self.asked} as it was read"
        )


def find_better_reading(
    network: ConvNet,
    splits: Splits,
    scaling: Scaling,
    channels_first: bool,
    order_is_known: bool,
) -> Reading | None:
    """Return the way of reading a file's weights that has clearly fewer errors, if there is one.

    `network` has them as they were read, for pixels by `scaling` and maps `channels_first` or not.
    Three scalings are tried, and both orders unless that is known or makes no difference.
    """
    some = splits.test[:TRIED_IMAGES]
    orders = [channels_first]
    if not order_is_known and flattens_a_map(network):
        orders.append(not channels_first)
    tried = []
    for order, as_read in _in_orders(network, orders):
        for each in Scaling:
            errors = _errors(as_read, PixelScaling.fit(each, splits.train.images), some)
            tried.append(Reading(each, order, errors, len(some)))
    asked = next(r for r in tried if r.scaling is scaling and r.channels_first is channels_first)
    best = min(tried, key=lambda reading: reading.errors)
    clearly = CLEARLY * math.sqrt(asked.errors + best.errors)
    return replace(best, asked=asked.errors) if asked.errors - best.errors > clearly else None


def _in_orders(network: ConvNet, orders: list[bool]) -> Iterator[tuple[bool, ConvNet]]:
    """Yield the network as it was read, and as it is if its maps are flattened the other way."""
    yield orders[0], network
    for other in orders[1:]:
        changed = copy.deepcopy(network)
        reorder_flattened(changed, to_channels_first=not other)
        yield other, changed


@torch.inference_mode()
def _errors(network: ConvNet, scaling: PixelScaling, images: ImageSet) -> int:
    was_training = network.training
    network.eval()
    errors = sum(
        int((network(scaling(batch)).argmax(1) != labels).sum())
        for batch, labels in zip(images.images.split(100), images.labels.split(100), strict=True)
    )
    network.train(was_training)
    return errors


def check_rescaling(rescaling: tuple[float, float], splits: Splits, source: str) -> None:
    """Refuse pixels that are not scaled as a file's own `Rescaling` does it.

    Raises:
        DataError: says which data.scaling does, if one does.
    """
    if _same(rescaling, splits.scaling):
        return
    scale, offset = rescaling
    does = [s for s in Scaling if _same(rescaling, PixelScaling.fit(s, splits.train.images))]
    remedy = f"give data.scaling={does[0].name}" if does else "no data.scaling does that"
    raise DataError(
        f"{source} rescales pixels itself, to {scale:.6g} x + {offset:.6g}, and this run does so "
        f"in another way: {remedy}."
    )


def _same(rescaling: tuple[float, float], scaling: PixelScaling) -> bool:
    """Return whether x * scale + offset is (x - scaling.offset) / scaling.divisor."""
    if isinstance(scaling.offset, tuple) or isinstance(scaling.divisor, tuple):
        return False
    ours = 1 / scaling.divisor, -scaling.offset / scaling.divisor
    return all(math.isclose(*pair, rel_tol=1e-5) for pair in zip(rescaling, ours, strict=True))
