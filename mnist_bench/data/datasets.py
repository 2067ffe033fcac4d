"""The table of datasets: files, sizes, digests and what has to be done to their images.

File names and folders are torchvision's, so that one folder serves both.
"""

import string
from dataclasses import dataclass
from pathlib import Path

from mnist_bench.errors import ConfigError


@dataclass(frozen=True)
class DataFile:
    """One IDX file; its size in bytes and its sha256 where they are pinned."""

    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class IdxDataset:
    """What a dataset of IDX files is on disk. Its files lie in `root/folder/raw`."""

    name: str
    folder: str
    split: str | None
    class_names: tuple[str, ...]
    train_images: DataFile
    train_labels: DataFile
    test_images: DataFile
    test_labels: DataFile
    image_shape: tuple[int, int] = (28, 28)
    # The label of the first class; the others follow.
    first_label: int = 0
    # Rows of the test files that make up the test set: first, and one past the last (None: all).
    test_rows: tuple[int, int | None] = (0, None)
    # Labels are rows of eight int32, the class first, then writer and form (QMNIST).
    wide_labels: bool = False
    # Images are stored with rows and columns swapped (EMNIST).
    transposed: bool = False
    # Where a Debian package installs the same files, each as NAME.gz, and the package's name.
    debian_folder: Path | None = None
    debian_package: str | None = None

    @property
    def files(self) -> tuple[DataFile, ...]:
        """The four files: train images and labels, test images and labels."""
        return self.train_images, self.train_labels, self.test_images, self.test_labels

    @property
    def pairs(self) -> tuple[tuple[DataFile, DataFile], ...]:
        """The images and labels that belong together: train, then test."""
        return (self.train_images, self.train_labels), (self.test_images, self.test_labels)

    def raw_folder(self, root: Path) -> Path:
        """Where the files lie under `root`."""
        return root / self.folder / "raw"


DIGITS = tuple(string.digits)
# Merged are the letters that look alike in both cases; they count as capitals.
_MERGED = (*DIGITS, *string.ascii_uppercase, *"abdefghnqrt")
EMNIST_CLASSES = {
    "balanced": _MERGED,
    "byclass": (*DIGITS, *string.ascii_uppercase, *string.ascii_lowercase),
    "bymerge": _MERGED,
    "letters": tuple(string.ascii_lowercase),
    "digits": DIGITS,
    "mnist": DIGITS,
}

# Sizes and digests of the uncompressed files. FashionMNIST's are those of Debian's copy, which,
# with the file name and the time stamp that Debian strips put back into the gzip header, has the
# md5 sums that torchvision pins (tests/data/test_sources.py does it again).
MNIST = IdxDataset(
    "mnist",
    "MNIST",
    None,
    DIGITS,
    DataFile(
        "train-images-idx3-ubyte",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    DataFile(
        "train-labels-idx1-ubyte",
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    DataFile(
        "t10k-images-idx3-ubyte",
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    DataFile(
        "t10k-labels-idx1-ubyte",
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
FASHION_MNIST = IdxDataset(
    "fashion_mnist",
    "FashionMNIST",
    None,
    (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    DataFile(
        "train-images-idx3-ubyte",
        47_040_016,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    DataFile(
        "train-labels-idx1-ubyte",
        60_008,
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    DataFile(
        "t10k-images-idx3-ubyte",
        7_840_016,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    DataFile(
        "t10k-labels-idx1-ubyte",
        10_008,
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    debian_folder=Path("/usr/share/datasets/fashion-mnist"),
    debian_package="dataset-fashion-mnist",
)
KMNIST = IdxDataset(
    "kmnist",
    "KMNIST",
    None,
    ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    DataFile("train-images-idx3-ubyte"),
    DataFile("train-labels-idx1-ubyte"),
    DataFile("t10k-images-idx3-ubyte"),
    DataFile("t10k-labels-idx1-ubyte"),
)


def _qmnist(split: str, test_rows: tuple[int, int | None]) -> IdxDataset:
    return IdxDataset(
        "qmnist",
        "QMNIST",
        split,
        DIGITS,
        DataFile("qmnist-train-images-idx3-ubyte"),
        DataFile("qmnist-train-labels-idx2-int"),
        DataFile("qmnist-test-images-idx3-ubyte"),
        DataFile("qmnist-test-labels-idx2-int"),
        test_rows=test_rows,
        wide_labels=True,
    )


def _emnist(split: str) -> IdxDataset:
    return IdxDataset(
        "emnist",
        "EMNIST",
        split,
        EMNIST_CLASSES[split],
        DataFile(f"emnist-{split}-train-images-idx3-ubyte"),
        DataFile(f"emnist-{split}-train-labels-idx1-ubyte"),
        DataFile(f"emnist-{split}-test-images-idx3-ubyte"),
        DataFile(f"emnist-{split}-test-labels-idx1-ubyte"),
        transposed=True,
        first_label=1 if split == "letters" else 0,
    )


# The first of each list is what `split: null` means.
DATASETS: dict[str, list[IdxDataset]] = {
    "mnist": [MNIST],
    "fashion_mnist": [FASHION_MNIST],
    "kmnist": [KMNIST],
    # The first 10,000 test images are MNIST's own test set, the other 50,000 its lost ones.
    "qmnist": [
        _qmnist("test10k", (0, 10_000)),
        _qmnist("test50k", (10_000, None)),
        _qmnist("test", (0, None)),
    ],
    "emnist": [_emnist(split) for split in EMNIST_CLASSES],
}


def find_dataset(name: str, split: str | None) -> IdxDataset:
    """Look up a dataset by `data.name` and `data.split`; a split of None is the dataset's default.

    Raises ConfigError, naming key, value and what is allowed, for a name or split not in the table.
    """
    if name not in DATASETS:
        raise ConfigError(
            f"data.name={name} is not a dataset: choose one of {', '.join(DATASETS)}."
        )
    for dataset in DATASETS[name]:
        if split in (None, dataset.split):
            return dataset
    splits = [dataset.split for dataset in DATASETS[name] if dataset.split is not None]
    if not splits:
        raise ConfigError(
            f"data.split={split} is not possible: {name} has no splits, leave it null."
        )
    raise ConfigError(
        f"data.split={split} is not a split of {name}: choose one of {', '.join(splits)}, "
        f"or null for {splits[0]}."
    )
