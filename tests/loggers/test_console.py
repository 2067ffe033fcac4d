"""Screens of 80 columns: nothing is longer, and no word is cut."""

import io

import pytest
from rich.console import Console

from mnist_bench.errors import wrapped
from mnist_bench.launch.sweeps.results import results_table
from mnist_bench.loggers.console import Screen, closing_table, layers_table
from mnist_bench.models import build_network, summarise
from mnist_bench.runs.standing import Standing, State
from mnist_bench.training.loop import Progress

RECORD = {
    **{"epoch": 100, "train_loss": 2.30259, "train_accuracy": 1.0, "val_loss": 12.3456789},
    **{"val_accuracy": 0.1135, "seconds": 133.14, "images_per_second": 123456.7},
    **{"learning_rate": 1e-4, "val_binary_accuracy": 0.9},
}


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    screen.console = Console(
        file=Terminal(), highlight=False, soft_wrap=True, force_terminal=True, color_system=None
    )
    return screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(screen: Screen) -> list[str]:
    return screen.console.file.getvalue().splitlines()


def test_the_line_of_an_epoch_fits(screen: Screen) -> None:
    screen.epoch(RECORD, 100, best=True)
    (line,) = shown(screen)
    assert line == (
        "epoch 100/100  train loss 2.3026, 100.00%  val loss 12.346, 11.35%  133 s  best"
    )
    assert len(line) <= 80
    screen.epoch({**RECORD, "val_accuracy": 1.0, "val_loss": 0.0}, 100, best=True)
    assert len(shown(screen)[1]) <= 80


def test_the_bar_shows_all_its_figures(screen: Screen) -> None:
    with screen.bar(epochs=100, steps=430, epoch=100) as bar:
        bar.show(Progress(100, 215, 65.0, 0.1234, 0.9876, 123456.0))
        (line,) = screen.console.file.getvalue().split("\r")[-1].splitlines()[-1:]
    for figure in ("epoch 100/100", "loss 0.1234", "0.9876", "123,456 images/s", "1:05 left"):
        assert figure in line


def lines_of(screen: Screen, *tables) -> list[str]:
    for table in tables:
        screen.console.print(table)
    return shown(screen)


@pytest.mark.parametrize("model", ["vgg16", "simple7x7", "wide5x7_bn"])
def test_the_table_of_layers_fits(screen: Screen, compose, model: str) -> None:
    network = build_network(compose(f"model={model}").model, 10, (1, 28, 28))
    table = layers_table(model, summarise(network, (1, 28, 28)))
    assert max(map(len, lines_of(screen, table))) <= 80


def test_the_closing_table_breaks_between_words(screen: Screen) -> None:
    told = "epoch 12, as validation's loss had not fallen for 10 " * 3
    lines = lines_of(screen, closing_table([("stopped after", told), ("folder", "outputs/runs/x")]))
    assert max(map(len, lines)) <= 80
    assert {word for line in lines for word in line.split()} <= {
        *told.split(),
        "stopped",
        "after",
    } | {
        "folder",
        "outputs/runs/x",
    }


def test_the_table_of_a_sweep_keeps_its_figures_and_breaks_names_between_settings(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_bench.launch.sweeps.results.Screen", lambda: screen)
    figures = {f"{part}_accuracy": 1.0 for part in ("train", "val", "test")}
    summary = {**figures, "val_loss": 0.0234, "test_errors": 1234, "train_seconds": 3725.0}
    name = "model.conv_batch_norm=true--model.kernel_size=3--model=simple3x3--seed={}"
    standings = [
        Standing(name.format(0), State.completed, summary),
        Standing(name.format(1), State.interrupted, {}, 12),
        Standing(name.format(2), State.waiting, {}),
    ]
    lines = lines_of(screen, results_table("outputs/sweeps/long", standings))
    assert max(map(len, lines)) <= 80
    words = {word for line in lines for word in line.split()}
    assert {"conv_batch_norm=true", "kernel_size=3", "model=simple3x3", "seed=2"} <= words
    assert {"100.00%", "0.0234", "1:02:05", "best", "stopped,", "12"} <= words
    assert "1234" not in words, "errors are the test accuracy again, and leave their room"


def test_a_sentence_breaks_between_words_and_its_command_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    command = "python train.py -m sweep.name=kernels model.kernel_size=3,5,7 'seed=range(3)'"
    sentence = f"3 of 9 runs are completed, 6 are left, as it was stopped. To go on: {command}"
    lines = wrapped(sentence, Terminal()).split("\n")
    assert lines[-1] == command
    assert max(map(len, lines[:-1])) <= 40
    assert " ".join(lines) == sentence
    assert wrapped(sentence, io.StringIO()) == sentence
