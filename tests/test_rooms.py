"""The rooms of the package: how many there are, and that each imports only from those before it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mnist_bench"
# From left to right, as README's map has it; those of one column know nothing of each other.
COLUMNS = [
    ["errors"],
    ["config", "kernels"],
    ["data", "models"],
    ["training"],
    ["loggers"],
    ["runs"],
    ["analysis"],
    ["launch", "exchange"],
    ["reproduction"],
    ["cli"],
]
PLACE = {room: number for number, rooms in enumerate(COLUMNS) for room in rooms}


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(file: Path) -> set[str]:
    """The rooms that a file imports from, whether at its top or within a function."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            assert node.module
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    paths = [module.split(".") for module in modules]
    rooms = {path[1] for path in paths if path[0] == "mnist_bench" and len(path) > 1}
    return rooms - {"__version__"}


def test_every_room_has_its_place() -> None:
    rooms = {room_of(path) for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    rooms -= {"__init__", "__main__", "__pycache__"}
    assert rooms == set(PLACE)
    assert len(rooms) <= 16


FILES = sorted(path for path in PACKAGE.rglob("*.py") if room_of(path) in PLACE)


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_rooms_before_its_own(file: Path) -> None:
    own = room_of(file)
    later = {r for r in imports_of(file) if r != own and PLACE[r] >= PLACE[own]}
    assert not later, f"{own} comes before {', '.join(sorted(later))}"


def test_no_test_imports_a_test() -> None:
    for file in Path(__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.rpartition(".")[2].startswith("test_"), file
