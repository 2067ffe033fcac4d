"""A trained network used from Python: it says what it said in its test, and refuses the rest."""

import numpy as np
import pytest
import torch

import mnist_bench
from mnist_bench.errors import DataError

IMAGE = np.zeros((28, 28), np.uint8)


@pytest.fixture(scope="module")
def network(uninterrupted):
    return mnist_bench.load(uninterrupted)


def test_it_says_what_it_said_in_its_test(network, uninterrupted, images) -> None:
    with np.load(uninterrupted / "predictions.npz") as saved:
        logits = torch.from_numpy(saved["logits"])
    found = network.predict(images.test_images[: len(logits)])
    assert np.array_equal(found.labels, logits.argmax(1).numpy())
    assert np.allclose(found.probabilities, logits.softmax(1).numpy(), atol=1e-5)


def test_one_image_and_many_in_any_form_are_the_same(network, images) -> None:
    some = images.test_images[:3]
    expected = network.predict(some).probabilities
    for given in (some.numpy(), some.numpy()[..., None], some.tolist(), list(some.numpy())):
        given = np.uint8(given) if isinstance(given[0], list) else given
        assert np.array_equal(network.predict(given).probabilities, expected)
    assert np.allclose(network.predict(some[1]).probabilities, expected[1:2], atol=1e-6)


def test_no_images_have_no_labels(network) -> None:
    found = network.predict(IMAGE[None][:0])
    assert found.labels.shape == (0,) and found.probabilities.shape == (0, 10)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (IMAGE / 255, r"are float64 of shape \(28, 28\)"),
        (torch.zeros(28, 28, dtype=torch.bfloat16), "are torch.bfloat16"),
        (IMAGE[:27], r"are uint8 of shape \(27, 28\)"),
        (np.zeros((2, 28, 28, 3), np.uint8), r"of shape \(2, 28, 28, 3\)"),
        ([IMAGE, IMAGE[:27]], "not one array"),
        ("digit.png", "of shape"),
        (None, "are object of shape"),
    ],
)
def test_other_images_are_refused_in_a_sentence(network, given, said) -> None:
    with pytest.raises(DataError, match=rf"{said}.*takes uint8 images, each of \(28, 28\)"):
        network.predict(given)
