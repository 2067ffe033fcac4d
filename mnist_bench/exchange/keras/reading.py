"""Layers from the files that Keras writes. Nothing in a file is executed.

Three formats: `.weights.h5` (Keras 2.12 and later), `.keras` (an archive with a configuration and
such weights), and legacy `.h5` (Keras 2.0 and later, with or without a configuration).
"""

import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from mnist_bench.errors import DataError
from mnist_bench.exchange.keras.builtin import INERT, UNREAD, refuse_layers
from mnist_bench.exchange.keras.layers import KerasLayer
from mnist_bench.exchange.keras.model_config import Description, read_model_config
from mnist_bench.exchange.keras.writing import snake_case

ARCHIVED_CONFIG, ARCHIVED_WEIGHTS = "config.json", "model.weights.h5"
# More than all variables of any network here (244 MB): a file that claims more is not of one.
MOST_BYTES = 2**29
MOST_FILE = 2**31  # the state of an optimizer is in it as well
MOST_CONFIG_BYTES = 2**20
# What h5py, zipfile and this module raise when they meet what they did not expect.
DAMAGE = (
    *(OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError),
    *(MemoryError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


@dataclass(frozen=True)
class KerasFile:
    """What a file holds: its layers' variables, and what its configuration tells if it has one.

    If it has none, one that lies beside it counts (`model.to_json()`), as `model.json` or under the
    file's own name.
    """

    weighted: list[KerasLayer]
    described: Description | None


def read_keras_file(path: Path) -> KerasFile:
    """Read the layers of a file, whichever of the formats it is in.

    Raises:
        DataError: the file is missing or damaged, in another format, or has a layer that no network
            here has (`Lambda` and custom layers among them).
    """
    if not path.is_file():
        what = "not a file" if path.exists() else "not there"
        raise DataError(f"{path} is {what}: give a .keras, .weights.h5 or .h5 file of Keras.")
    try:
        if zipfile.is_zipfile(path):
            return _read_archive(path)
        with h5py.File(path, "r") as file:
            content = _read_hdf5(file, str(path))
        return replace(content, described=content.described or _read_beside(path))
    except DAMAGE as error:
        raise DataError(
            f"{path} cannot be read as a .keras, .weights.h5 or .h5 file of Keras "
            f"({type(error).__name__}: {error}): save it again."
        ) from error


def _read_beside(path: Path) -> Description | None:
    """Return what a model's JSON that lies beside its weights tells, if there is one."""
    for name in (f"{path.name.partition('.')[0]}.json", "model.json"):
        beside = path.with_name(name)
        if beside.is_file() and beside.stat().st_size <= MOST_CONFIG_BYTES:
            text = beside.read_bytes()
            if b'"class_name"' in text:  # else it is another program's
                return read_model_config(text, str(beside))
    return None


def _read_archive(path: Path) -> KerasFile:
    with zipfile.ZipFile(path) as archive:
        missing = {ARCHIVED_CONFIG, ARCHIVED_WEIGHTS} - set(archive.namelist())
        if missing:
            raise DataError(f"{path} is not a .keras file: it has no {min(missing)} in it.")
        for name, most in ((ARCHIVED_CONFIG, MOST_CONFIG_BYTES), (ARCHIVED_WEIGHTS, MOST_FILE)):
            if archive.getinfo(name).file_size > most:
                raise DataError(f"{path} is refused: its {name} is larger than {most} bytes.")
        described = read_model_config(archive.read(ARCHIVED_CONFIG), str(path))
        with archive.open(ARCHIVED_WEIGHTS) as weights:
            whole = weights if _is_stored(archive, path) else io.BytesIO(weights.read())
            with h5py.File(whole, "r") as file:
                return KerasFile(_read_groups(file, str(path)), described)


def _is_stored(archive: zipfile.ZipFile, path: Path) -> bool:
    """Return whether the weights can be read where they are, as Keras stores them.

    If they are compressed they are read whole, as each step back in them would begin them again.
    """
    weights = archive.getinfo(ARCHIVED_WEIGHTS)
    if weights.compress_type == zipfile.ZIP_STORED:
        return True
    if weights.file_size > MOST_BYTES:
        raise DataError(
            f"{path} is refused: its weights are compressed, and more than {MOST_BYTES // 2**20} "
            f"MiB without that."
        )
    return False


def _read_hdf5(file: h5py.File, source: str) -> KerasFile:
    if "model_config" in file.attrs:
        described = read_model_config(file.attrs["model_config"], source)
        return KerasFile(_read_legacy(_group(file, "model_weights", source), source), described)
    if "layer_names" in file.attrs:
        return KerasFile(_read_legacy(file, source), None)
    return KerasFile(_read_groups(file, source), None)


# --- Keras 3 and late Keras 2: a group per layer, named after its class -----------------------

_KINDS = {"conv2d": "Conv2D", "dense": "Dense", "batch_normalization": "BatchNormalization"}
_WITHOUT_WEIGHTS = {
    *("activation", "cropping2d", "dropout", "flatten", "input_layer", "max_pooling2d"),
    *("re_lu", "rescaling", "reshape", "softmax"),
    *map(snake_case, INERT),
}
_UNREAD = {snake_case(kind): kind for kind in UNREAD}


def _read_groups(file: h5py.File, source: str) -> list[KerasLayer]:
    names = [name for name in ("layers", "_layer_checkpoint_dependencies") if name in file]
    if not names:
        if any(isinstance(group, h5py.Group) and "vars" in group for group in file.values()):
            raise DataError(
                f"{source} is of a model that is code of its own: only the weights of Sequential "
                f"and functional models are read, whose layers Keras names."
            )
        raise DataError(f"{source} is not a file of Keras's weights: it has no layers in it.")
    layers = _group(file, names[0], source)
    stems = {name: _by_number(name)[0] for name in layers}
    known = _KINDS.keys() | _WITHOUT_WEIGHTS
    unread = [_UNREAD[stem] for stem in stems.values() if stem in _UNREAD]
    own = [name for name, stem in stems.items() if stem not in known | _UNREAD.keys()]
    refuse_layers(source, unread, own, ", ".join(stems))
    found: list[KerasLayer] = []
    for name in sorted(layers, key=_by_number):
        if (stem := stems[name]) in _KINDS:
            stored = _group(_group(layers, name, source), "vars", source)
            variables = _variables(stored, sorted(stored, key=int), found, source)
            found.append(KerasLayer(_KINDS[stem], variables=variables))
    return found


def _by_number(name: str) -> tuple[str, int]:
    """`conv2d`, `conv2d_1`, … `conv2d_10` in the order of their numbers."""
    match = re.fullmatch(r"(.*?)(?:_(\d+))?", name, re.DOTALL)
    assert match is not None
    return match[1], int(match[2] or 0)


# --- Legacy: attributes list the layers and their variables in order --------------------------


def _read_legacy(group: h5py.Group, source: str) -> list[KerasLayer]:
    if _text(group.attrs.get("backend", "")) == "theano":
        raise DataError(f"{source} was saved by Keras on Theano, which stores kernels flipped.")
    found: list[KerasLayer] = []
    for name in _names(group, "layer_names"):
        layer = _group(group, name, source)
        variables = _variables(layer, _names(layer, "weight_names"), found, source)
        if variables:
            found.append(KerasLayer(_kind(name, variables, source), variables=variables))
    return found


def _kind(name: str, variables: Sequence[np.ndarray], source: str) -> str:
    """The kind of a layer by its variables: its name may be the user's own."""
    match [variable.ndim for variable in variables]:
        case [4, *_]:
            return "Conv2D"
        case [2, *_]:
            return "Dense"
        case [1, 1, 1, 1]:
            return "BatchNormalization"
    shapes = ", ".join(str(variable.shape) for variable in variables)
    raise DataError(f"{source} has a layer {name} that no network here has (variables {shapes}).")


def _names(group: h5py.Group, attribute: str) -> list[str]:
    names = [_text(name) for name in group.attrs.get(attribute, [])]
    if len(set(names)) < len(names):
        raise ValueError(f"{attribute} names something twice")
    return names


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


# --- HDF5, without its ways out of the file ---------------------------------------------------


def _group(parent: h5py.Group, name: str, source: str) -> h5py.Group:
    found = _inside(parent, name, source)
    if not isinstance(found, h5py.Group):
        raise DataError(f"{source} is damaged: {parent.name}/{name} is not a group.")
    return found


def _variables(
    parent: h5py.Group, names: Sequence[str], before: Sequence[KerasLayer], source: str
) -> tuple[np.ndarray, ...]:
    """The variables of a layer that come after those of the layers `before` it.

    All of them are counted, as a file may store one variable and have it under any number of names.
    """
    spent = sum(variable.nbytes for layer in before for variable in layer.variables)
    found = []
    for name in names:
        found.append(_variable(parent, name, source))
        spent += found[-1].nbytes
        if spent > MOST_BYTES:
            raise DataError(
                f"{source} is refused: its variables are more than {MOST_BYTES // 2**20} MiB, and "
                f"those of no network here are."
            )
    return tuple(found)


def _variable(parent: h5py.Group, name: str, source: str) -> np.ndarray:
    """A variable as float32.

    It must be stored whole, as Keras does, so that no small file can claim a large one.
    """
    found = _inside(parent, name, source)
    if not isinstance(found, h5py.Dataset) or found.dtype.kind != "f":
        raise DataError(f"{source} is damaged: {parent.name}/{name} does not hold floats.")
    elsewhere = found.external or found.is_virtual or found.chunks
    if elsewhere or found.id.get_storage_size() < found.nbytes or found.nbytes > MOST_BYTES:
        raise DataError(
            f"{source} is refused: {parent.name}/{name} is not stored whole in the file, or is "
            f"larger than {MOST_BYTES // 2**20} MiB."
        )
    values: np.ndarray = found[()].astype(np.float32)
    return values


def _inside(parent: h5py.Group, path: str, source: str) -> object:
    """The object at a path, every part of which must be a plain member of the file."""
    found = parent
    for part in path.split("/"):
        if not isinstance(found, h5py.Group) or part not in found.keys():  # noqa: SIM118
            raise DataError(f"{source} is damaged: it has no {parent.name}/{path}.")
        if not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise DataError(f"{source} is refused: {parent.name}/{path} is a link, not a variable.")
        found = found[part]
    return found
