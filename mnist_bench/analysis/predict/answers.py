"""From files to what a network says of each: decoded in threads while the network computes."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mnist_bench.analysis.predict.files import read_image
from mnist_bench.analysis.predict.mnist_form import FORMS, to_mnist
from mnist_bench.config.schema import OwnDataConfig
from mnist_bench.data.loading import resize
from mnist_bench.errors import DataError
from mnist_bench.runs.load import TrainedNetwork

# Files that a thread reads one after the other, and that the network is asked about at once.
AT_ONCE = 100
# Lots that are read ahead: they keep the threads busy, and no more images than these are in memory.
AHEAD = 8
TOP = 3


@dataclass(frozen=True)
class Answer:
    """What a network says of one file, or why it cannot: then `error` is a sentence, and the rest
    is None.

    `seen` are the pixels that went into the network, before their scaling: uint8 (H, W) or
    (H, W, 3). `probabilities` are float32, one for each of the `class_names`.
    """

    path: Path
    class_names: tuple[str, ...]
    seen: NDArray[np.uint8] | None = None
    probabilities: NDArray[np.float32] | None = None
    error: str | None = None

    @property
    def top(self) -> list[tuple[str, float]]:
        """The likeliest classes, three at most, each with its probability."""
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:TOP]
        return [(self.class_names[k], float(self.probabilities[k])) for k in order]

    def as_json(self) -> dict[str, Any]:
        """Return what `mnist-bench predict --json` prints of it."""
        if self.error is not None:
            return {"image": str(self.path), "error": self.error}
        (label, probability), *_ = self.top
        return {
            "image": str(self.path),
            "label": label,
            "probability": probability,
            "top3": [{"label": name, "probability": part} for name, part in self.top],
        }


def answer_files(network: TrainedNetwork, paths: Iterable[str | Path]) -> Iterator[Answer]:
    """Yield what a network says of image files, in their order.

    A file that cannot be read is answered with an error, and the others all the same. Networks of
    MNIST and the datasets that are like it see each picture in the form of its images
    (`mnist_form`); those of other data see it in the size and the colours that they were trained
    on.
    """
    remaining = map(Path, paths)
    with ThreadPoolExecutor() as pool:

        def begin() -> Iterator[Future[list[Answer]]]:
            while lot := list(islice(remaining, AT_ONCE)):
                yield pool.submit(_prepare_all, network, lot)

        begun = begin()
        waiting = deque(islice(begun, AHEAD))
        while waiting:
            prepared = waiting.popleft().result()
            waiting.extend(islice(begun, 1))
            yield from _answered(network, prepared)


def prepare_image(network: TrainedNetwork, image: Image.Image) -> NDArray[np.uint8]:
    """Return a picture as the network is to see it: uint8 (H, W), or (H, W, 3) if it sees colours.

    Raises:
        DataError: nothing is drawn on it.
    """
    channels, height, width = network.image_shape
    pixels = np.asarray(image)
    if pixels.min() == pixels.max() or image.size == (1, 1):
        raise DataError("nothing is drawn on it")
    data = network.config.data
    if channels == 1 and data.name in FORMS and not isinstance(data, OwnDataConfig):
        pixels = to_mnist(image, FORMS[data.name])
    if pixels.shape[:2] != (height, width):
        pixels = resize(torch.from_numpy(np.array(pixels))[None], (height, width))[0].numpy()
    return pixels


def _prepare_all(network: TrainedNetwork, paths: Sequence[Path]) -> list[Answer]:
    return [_prepare(network, path) for path in paths]


def _prepare(network: TrainedNetwork, path: Path) -> Answer:
    try:
        image = read_image(path, grey=network.image_shape[0] == 1)
        return Answer(path, network.class_names, prepare_image(network, image))
    except DataError as error:
        told = str(error)
        if not told.startswith(str(path)):
            told = f"{path} cannot be answered: {told}."
        return Answer(path, network.class_names, error=told)


def _answered(network: TrainedNetwork, prepared: Sequence[Answer]) -> Iterator[Answer]:
    """Ask the network about all at once that could be read."""
    seen = [answer.seen for answer in prepared if answer.seen is not None]
    rows = iter(network.predict(np.stack(seen)).probabilities if seen else ())
    for answer in prepared:
        if answer.seen is None:
            yield answer
        else:
            yield Answer(answer.path, answer.class_names, answer.seen, next(rows))
