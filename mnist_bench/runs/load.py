"""The one way to use a trained network: from a run's folder to labels and probabilities.

N images, C channels, H rows, W columns, K classes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mnist_bench.config.parts import beside, search_in
from mnist_bench.config.read import parse_config, read_saved, vouched_config
from mnist_bench.config.schema import Scaling, TrainConfig
from mnist_bench.data.splits import PixelScaling
from mnist_bench.errors import ConfigError, DataError
from mnist_bench.models import build_network
from mnist_bench.runs.checkpoint import (
    Content,
    fitting,
    read_best,
    read_checkpoint,
    read_last,
    refuse_another_configuration,
)
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.prepare import prepare
from mnist_bench.runs.records import read_summary

# Images per forward pass.
BATCH = 500


@dataclass(frozen=True)
class Prediction:
    """What a network says of N images: the likeliest class of each, int64 (N,), and the probability
    of every class, float32 (N, K)."""

    labels: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with the weights that its run was tested with, in fp32 on the CPU."""

    config: TrainConfig
    network: nn.Module
    scaling: PixelScaling
    image_shape: tuple[int, int, int]  # (C, H, W)
    class_names: tuple[str, ...]
    # Of when the weights are: "as of epoch 5".
    when: str

    @torch.inference_mode()
    def predict(self, images: Any) -> Prediction:
        """Classify images as they are on disk, before any scaling.

        `images` are uint8: (N, H, W), (N, H, W, C), or one image of either kind; an array, a tensor
        or what NumPy makes an array of.

        Raises:
            DataError: they are of another type or shape than the network was trained on.
        """
        images_NCHW = self._check(images)
        logits = [
            self.network(self.scaling(batch)).float()
            for batch in images_NCHW.split(BATCH)
            if len(batch)  # a network of one's own need not take none
        ] or [torch.zeros(0, len(self.class_names))]
        probabilities_NK = torch.cat(logits).softmax(1)
        return Prediction(probabilities_NK.argmax(1).numpy(), probabilities_NK.numpy())

    def _check(self, images: Any) -> Tensor:
        """Return the images as uint8 (N, C, H, W)."""
        channels, height, width = self.image_shape
        expected = f"({height}, {width})" if channels == 1 else f"({height}, {width}, 3)"
        wanted = f"this network takes uint8 images, each of {expected}, one or many in one array."
        if isinstance(images, Tensor) and images.dtype is not torch.uint8:
            raise DataError(f"The images are {images.dtype}: {wanted}")
        try:
            array = images.cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
        except (ValueError, TypeError) as error:
            raise DataError(f"The images are not one array ({error}): {wanted}") from error
        grey = channels == 1 and array.shape[-2:] == (height, width) and array.ndim in (2, 3)
        colour = array.shape[-3:] == (height, width, channels) and array.ndim in (3, 4)
        if array.dtype != np.uint8 or not (grey or colour):
            raise DataError(f"The images are {array.dtype} of shape {array.shape}: {wanted}")
        array_NHWC = array.reshape(-1, height, width, channels)
        # A copy: what Pillow gives is read-only.
        return torch.from_numpy(np.array(array_NHWC.transpose(0, 3, 1, 2), order="C"))


def load(folder: str | Path, config_dir: str | Path | None = None) -> TrainedNetwork:
    """Return the network of the run in `folder`, with the weights that it was tested with.

    Of a run that has not been tested (yet) they are the last ones. In place of a folder,
    `mnist-bench export` has written a file, NAME.safetensors. `config_dir` vouches for a network
    of one's own that is not in an installed package: the folder given to `--config-dir`.

    Raises:
        ConfigError: the folder is not that of a run, or its network is from nowhere known.
        DataError: a file in it is damaged.
    """
    if Path(folder).suffix == SAFETENSORS and Path(folder).is_file():
        return load_safetensors(Path(folder), config_dir)
    run = RunFolder(folder)
    has_weights = run.can_go_on or run.best.is_file()
    for needed, there in ((run.last, has_weights), (run.config, run.config.is_file())):
        if not there:
            where = needed.relative_to(run.path)
            raise ConfigError(f"{folder} is not the folder of a run: it has no {where}.")
    vouched = [] if config_dir is None else beside(config_dir)
    search_in(vouched)
    config = read_saved(run.path, vouched)
    saved = read_last(run, lambda line: None) if run.can_go_on else read_checkpoint(run.best)
    refuse_another_configuration(saved, run.last if run.can_go_on else run.best, config, run)
    weights, when = _tested_weights(run, saved)
    inputs = saved["inputs"] or _find_inputs(config, weights)
    image_shape = tuple(inputs["image_shape"])
    names = tuple(inputs["class_names"])
    network = build_network(config.model, len(names), image_shape)
    with fitting(run.last if run.can_go_on else run.best):
        network.load_state_dict(weights)
    scaling = PixelScaling(inputs["offset"], inputs["divisor"])
    return TrainedNetwork(config, network.eval(), scaling, image_shape, names, when)


# What a network that was exported has in its name.
SAFETENSORS = ".safetensors"


def load_safetensors(path: Path, config_dir: str | Path | None = None) -> TrainedNetwork:
    """Return the network in a file of `mnist-bench export --to safetensors`; as for `load`.

    Raises:
        ConfigError: safetensors is not installed, or the network is from nowhere known.
        DataError: the file is damaged, or not one of ours.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise ConfigError(f"To read {path}, pip install 'mnist-bench[export]'.") from error
    try:
        with safe_open(path, "pt") as file:
            saved = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        choices, names = json.loads(saved["choices"]), tuple(json.loads(saved["class_names"]))
        inputs = [json.loads(saved[key]) for key in ("offset", "divisor", "image_shape")]
        configuration, when = saved["config"].encode(), saved["weights"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as a network ({type(error).__name__}: {error}): it is damaged, "
            f"or not of mnist-bench export."
        ) from error
    vouched = [] if config_dir is None else beside(config_dir)
    search_in(vouched)
    config = vouched_config(parse_config(configuration, str(path)), choices, vouched)
    offset, divisor, image_shape = (tuple(v) if isinstance(v, list) else v for v in inputs)
    network = build_network(config.model, len(names), image_shape)
    with fitting(path):
        network.load_state_dict(weights)
    scaling = PixelScaling(offset, divisor)
    return TrainedNetwork(config, network.eval(), scaling, image_shape, names, when)


def _tested_weights(run: RunFolder, saved: Content) -> tuple[dict[str, Tensor], str]:
    """Return the weights that a run was tested with, the last ones if it was not, and of when.

    `saved` is its last checkpoint, or its best one if a sweep kept that alone.
    """
    epoch = saved["epoch"] if "epoch" in saved else len(saved["position"]["history"])
    tested = read_summary(run.path).get("tested_epoch")
    if tested in (None, epoch):
        within = "position" in saved and saved["position"]["step"]
        when = f"within epoch {epoch + 1}" if within else f"as of epoch {epoch}"
        return saved.get("average") or saved["network"], when
    if not (run.can_go_on and run.best.is_file()):
        raise DataError(
            f"{run} was tested with the weights of epoch {tested}, and has those of epoch {epoch} "
            f"alone: its sweep kept no others (sweep.keep)."
        )
    return read_best(run, tested)["network"], f"as of epoch {tested}"


def _find_inputs(config: TrainConfig, weights: dict[str, Tensor]) -> dict[str, Any]:
    """Return what checkpoints of format 2 do not have; all of them are of ours, 28 x 28."""
    names = [str(n) for n in range(len(weights["classifier.output.bias"]))]
    scaling = PixelScaling(0.0, 1.0 if config.data.scaling is Scaling.raw else 255.0)
    if config.data.scaling is Scaling.standardised:
        scaling = prepare(config, lambda line: None).splits.scaling
    return {
        "offset": scaling.offset,
        "divisor": scaling.divisor,
        "image_shape": [1, 28, 28],
        "class_names": names,
    }
