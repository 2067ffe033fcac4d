"""The pictures that `benchmarks.pictures` makes: each shows its digit, and each has its row."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import KINDS, report
from mnist_bench.analysis.predict.files import read_image
from mnist_bench.analysis.predict.mnist_form import to_mnist


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shows_the_digit_upright(images, tmp_path, kind) -> None:
    digit = images.test_images[0].numpy()
    make, save = KINDS[kind]
    save(make(Image.fromarray(digit)), tmp_path / "7")
    (path,) = tmp_path.iterdir()
    found = to_mnist(read_image(path, grey=True))
    assert np.corrcoef(found.ravel(), digit.ravel())[0, 1] > 0.9


def test_the_report_has_a_row_for_each_kind(trained) -> None:
    lines = report(trained, 20).splitlines()
    rows = [line.split(" | ") for line in lines if line.endswith(" |")][2:]
    assert [row[0].removeprefix("| ") for row in rows] == list(KINDS)
    assert rows[0][3] == "20" and "--images 20" in lines[2]
