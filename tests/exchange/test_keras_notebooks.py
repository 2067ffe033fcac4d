"""The networks of the five sources, as their own code builds and saves them, are read: after the
import they make exactly as many errors as in Keras."""

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import torch

from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.images import Images
from mnist_bench.exchange.keras.runs import import_run
from mnist_bench.models import ConvNet
from tests.support.keras_files import SUFFIXES, read_into, save
from tests.support.notebooks import SOURCES, teach

Compose = Callable[..., TrainConfig]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("cnn5x5_single", 1_000),
        *[
            pytest.param(name, 1_000 if name == "vgg16" else 10_000, marks=pytest.mark.slow)
            for name in SOURCES
        ],
    ],
)
def test_each_network_makes_as_many_errors_as_in_keras(
    compose: Compose,
    images: Images,
    mnist_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    count: int,
) -> None:
    monkeypatch.setenv("MNIST_BENCH_DATA", str(mnist_root))
    keras.utils.set_random_seed(0)
    source = SOURCES[name]
    model = source.build()
    taught = slice(0, 500)
    teach(model, source.inputs(images.train_images[taught]), images.train_labels[taught].numpy())
    expected = model.predict(source.inputs(images.test_images[:count]), 100, verbose=0)
    errors = int((expected.argmax(1) != images.test_labels[:count].numpy()).sum())
    assert errors < 0.5 * count

    networks = []
    for suffix in SUFFIXES:
        file = save(model, tmp_path / f"theirs{suffix}")
        networks.append(read_into(ConvNet(compose(f"model={name}").model), file).state_dict())
    for key, value in networks[0].items():
        assert all(torch.equal(value, other[key]) for other in networks[1:]), key

    scaling = "raw" if source.divisor == 1 else "unit"
    settings = [f"model={name}", f"data.scaling={scaling}", f"data.limit={count}"]
    told = import_run(tmp_path / "theirs.h5", tmp_path / "run", settings)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["test_errors"], summary["test_images"]) == (errors, count)
    assert summary["warning"] is None
    assert f"{errors} errors in {count:,} images" in told
    logits = torch.from_numpy(np.load(tmp_path / "run/predictions.npz")["logits"])
    np.testing.assert_allclose(logits.softmax(1).numpy(), expected, atol=1e-3)
