"""TensorBoard on many runs: what they are called, what its pages show, and that columns sort."""

import itertools
import json
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mnist_bench.analysis.board import Links, board
from mnist_bench.analysis.find import runs_below
from mnist_bench.analysis.settings import short_keys
from tests.support.browser import console_errors, open_browser
from tests.support.made_up_runs import write_run
from tests.support.train_command import REPOSITORY, environment, run_train


def names(root: Path, links: Path) -> list[str]:
    links.mkdir()
    made = Links(root, links)
    made.update()
    return sorted(made.made)


# --- Names ------------------------------------------------------------------------------------


def test_runs_of_a_sweep_are_named_by_what_varies(tmp_path) -> None:
    for size, seed in itertools.product((3, 5), (0, 1)):
        folder = tmp_path / "sweep" / f"model.kernel_size={size}--seed={seed}"
        write_run(folder, f"model.kernel_size={size}", f"seed={seed}")
    found = names(tmp_path / "sweep", tmp_path / "links")
    assert found == [f"kernel_size={k} seed={s}" for k in (3, 5) for s in (0, 1)]
    assert (tmp_path / "links" / found[0]).resolve().name == "tensorboard"


def test_what_follows_from_the_network_is_not_told(tmp_path) -> None:
    for model, dropout in itertools.product(("cnn3x3", "cnn5x5", "vgg16"), (0, 0.5)):
        folder = tmp_path / "sweep" / f"{model}-{dropout}"
        write_run(folder, f"model={model}", f"model.dropout={dropout}", events=False)
        (folder / "tensorboard").mkdir()
    found = names(tmp_path / "sweep", tmp_path / "links")
    assert found == sorted(
        f"model={m} dropout={d}" for m in ("cnn3x3", "cnn5x5", "vgg16") for d in ("0", "0.5")
    )


def test_sweeps_beside_each_other_are_told_by_their_names(tmp_path) -> None:
    for sweep, seed in itertools.product(("one", "two"), (0, 1)):
        folder = tmp_path / "outputs" / "sweeps" / sweep / f"seed={seed}"
        write_run(folder, f"seed={seed}", events=False)
        (folder / "tensorboard").mkdir()
    single = write_run(tmp_path / "outputs" / "runs" / "2026-11-26_mnist_cnn", events=False)
    (single / "tensorboard").mkdir()
    assert names(tmp_path / "outputs", tmp_path / "links") == [
        *("one/seed=0", "one/seed=1", "runs/2026-11-26_mnist_cnn", "two/seed=0", "two/seed=1"),
    ]


def test_runs_that_differ_in_nothing_or_in_much_are_named_by_their_folders(tmp_path) -> None:
    for name in ("first", "second"):
        write_run(tmp_path / "same" / name, "seed=3", events=False)
        (tmp_path / "same" / name / "tensorboard").mkdir()
    assert names(tmp_path / "same", tmp_path / "links") == ["first", "second"]
    much = ("trainer.epochs=3", "trainer.batch_size=64", "optimizer.lr=0.01", "model.dropout=0.1")
    much += ("model.kernel_size=5", "label_smoothing=0.1")
    for name, overrides in (("little", ()), ("much", much)):
        write_run(tmp_path / "other" / name, *overrides, events=False)
        (tmp_path / "other" / name / "tensorboard").mkdir()
    assert names(tmp_path / "other", tmp_path / "more_links") == ["little", "much"]


def test_keys_of_one_last_word_are_told_whole() -> None:
    assert short_keys(["a.size", "b.size", "b.rate", "seed"]) == {
        **{"a.size": "a.size", "b.size": "b.size"},
        **{"b.rate": "rate", "seed": "seed"},
    }


def test_new_runs_appear_and_damaged_ones_hide_no_other(tmp_path) -> None:
    sweep = tmp_path / "sweep"
    write_run(sweep / "a", "seed=0", events=False)
    (sweep / "a" / "tensorboard").mkdir()
    (tmp_path / "links").mkdir()
    links = Links(sweep, tmp_path / "links")
    assert links.update() == 1 and list(links.made) == ["a"]
    write_run(sweep / "b", "seed=1", events=False)
    (sweep / "b" / "tensorboard").mkdir()
    assert links.update() == 2 and sorted(links.made) == ["seed=0", "seed=1"]
    (sweep / "c" / "tensorboard").mkdir(parents=True)
    (sweep / "c" / "summary.json").write_text("{")
    assert links.update() == 3
    assert {link.resolve().parent.name for link in (tmp_path / "links").iterdir()} == set("abc")


# --- What TensorBoard makes of them -----------------------------------------------------------


def ask(address: str, path: str, **request: Any) -> Any:
    query = urllib.parse.urlencode({"request": json.dumps(request)})
    with urllib.request.urlopen(f"{address}{path}?{query}") as answer:
        return json.load(answer)


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return found


HPARAMS = "data/plugin/hparams"


def test_every_column_of_the_table_sorts_whatever_runs_there_are(tmp_path) -> None:
    """Runs of lists beside such of numbers, of other optimizers, and of an experiment."""
    lines = [
        *(("model.dropout=0.25",), ("model.dropout=[0.25,0.5]",), ("model.dropout=0",)),
        *(("model.kernel_size=11", "optimizer=sgd"), ("model.kernel_size=[3,5]",)),
        ("experiment=wide5x7_bn", "trainer.clip_norm=0.5"),
    ]
    for number, overrides in enumerate(lines):
        write_run(tmp_path / "runs" / str(number), *overrides, accuracy=0.9 + number / 100)
    with board(tmp_path / "runs") as (address, _):
        wait_for(lambda: len(ask(address, "data/runs")) == len(lines))
        infos = wait_for(lambda: ask(address, f"{HPARAMS}/experiment").get("hparamInfos"))
        varying = {info["name"] for info in infos if info["differs"]}
        assert {"model.dropout", "model.kernel_size", "optimizer", "experiment"} <= varying
        columns = [{"hparam": name} for name in varying]
        columns.append({"metric": {"tag": "accuracy/test"}})
        for column, order in itertools.product(columns, ("ORDER_ASC", "ORDER_DESC")):
            rows = table(address, {**column, "order": order})
            assert len(rows) == len(lines), column
        by_size = table(address, {"hparam": "model.kernel_size", "order": "ORDER_ASC"})
        sizes = [row["hparams"]["model.kernel_size"].strip() for row in by_size]
        assert sizes == ["3", "3", "3", "11", "[3,5]", "[5,7]"]
        best = table(address, {"metric": {"tag": "accuracy/test"}, "order": "ORDER_DESC"})
        accuracies = [
            value["value"]
            for row in best
            for value in row["metricValues"]
            if value["name"]["tag"] == "accuracy/test"
        ]
        assert accuracies == sorted(accuracies, reverse=True) and len(accuracies) == len(lines)


def table(address: str, *columns: Any) -> Any:
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    request = {"colParams": columns, "allowedStatuses": statuses, "sliceSize": 100}
    return ask(address, f"{HPARAMS}/session_groups", **request)["sessionGroups"]


def test_the_command_prints_its_address_shows_new_runs_and_ends_with_ctrl_c(tmp_path) -> None:
    write_run(tmp_path / "outputs" / "sweeps" / "two" / "a", "seed=0")
    command = [sys.executable, "-m", "mnist_bench", "board", "two", "--no-open"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(tmp_path, PYTHONPATH=str(REPOSITORY), PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.fullmatch(r"1 run of two: (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", line)
    assert match, line + process.stdout.read()
    write_run(tmp_path / "outputs" / "sweeps" / "two" / "b", "seed=1")
    wait_for(lambda: sorted(ask(match[1], "data/runs"))[-2:] == ["seed=0", "seed=1"])
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert process.stdout.read() == ""


# --- In a browser -----------------------------------------------------------------------------

SIZES, DROPOUTS, SEEDS = (3, 5, 7), (0, 0.25, 0.5), (0, 1)
EVERYWHERE = """
const all = [];
const walk = (root) => {
  for (const one of root.querySelectorAll('*')) {
    all.push(one);
    if (one.shadowRoot) walk(one.shadowRoot);
  }
};
walk(document);
"""
CELLS = """
const texts = all.filter((e) => e.tagName === 'VAADIN-GRID-CELL-CONTENT' && e.offsetParent);
return texts.map((e) => [e.getBoundingClientRect(), e.textContent.trim()])
  .map(([box, text]) => [(box.top + box.bottom) / 2, box.left, text]);
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, mnist_root) -> Path:
    """The folder of a sweep of 3 kernel sizes by 3 dropouts by 2 seeds, with figures."""
    cwd = tmp_path_factory.mktemp("board")
    process = run_train(
        *("-m", "sweep.name=kernels", "model=cnn5x5_single", "model.channels=[2]"),
        *("model.dense=[8]", "data.limit=200", "trainer.epochs=2", "trainer.gpus=0"),
        *(f"model.kernel_size={','.join(map(str, SIZES))}", "trainer.precision=fp32"),
        *(f"model.dropout={','.join(map(str, DROPOUTS))}", "seed=range(2)"),
        "trainer.figures=true",
        cwd=cwd,
        data_root=mnist_root,
    )
    assert process.returncode == 0, process.stderr
    return cwd / "outputs" / "sweeps" / "kernels"


@pytest.fixture(scope="module")
def served(sweep) -> Iterator[str]:
    with board(sweep) as (address, _):
        yield address


def rows_of(driver: Any) -> list[list[str]]:
    """The table of the HPARAMS page as it is seen: its rows from top to bottom, each of texts."""
    rows: list[list[tuple[float, str]]] = []
    last = -100.0
    for middle, left, text in sorted(driver.execute_script(EVERYWHERE + CELLS)):
        if middle - last > 10:
            rows.append([])
        rows[-1].append((left, text))
        last = middle
    return [[text for _, text in sorted(row)] for row in rows]


def visible_table(driver: Any) -> tuple[list[str], list[list[str]]]:
    """Its header and its 18 rows, once they are there."""

    def complete() -> tuple[list[str], list[list[str]]] | None:
        header, *rows = rows_of(driver) or [[]]
        rows = [row for row in rows if len(row) == len(header) and "seed=" in row[0]]
        return (header, rows) if "Trial ID" in header and len(rows) == 18 else None

    found: tuple[list[str], list[list[str]]] = wait_for(complete)
    return found


def choose(driver: Any, menu: str, item: str) -> None:
    """Pick an item of one of the menus in the HPARAMS page's pane, by clicks."""
    clicked = driver.execute_script(
        EVERYWHERE
        + """
        const menus = all.filter((e) => e.tagName === 'PAPER-DROPDOWN-MENU');
        const menu = menus.find((e) => e.label === arguments[0]);
        if (!menu) return false;
        menu.scrollIntoView();
        const items = [...menu.querySelectorAll('paper-item')];
        const item = items.find((e) => e.textContent.trim() === arguments[1]);
        if (!item) return false;
        menu.click();
        item.click();
        return true;""",
        menu,
        item,
    )
    assert clicked, (menu, item)


@pytest.mark.slow
@pytest.mark.needs_browser
def test_in_a_browser_runs_have_names_curves_overlay_and_columns_sort(served, tmp_path) -> None:
    expected = {
        f"dropout={d} kernel_size={k} seed={s}"
        for k, d, s in itertools.product(SIZES, DROPOUTS, SEEDS)
    }
    wait_for(lambda: set(ask(served, "data/runs")) == expected)
    with open_browser(tmp_path, 1900, 1400) as driver:
        driver.get(f"{served}#timeseries")
        seen = "return document.body.innerText"
        wait_for(lambda: all(name in driver.execute_script(seen) for name in expected))

        driver.get(f"{served}#custom_scalars")
        texts = EVERYWHERE + "return all.map((e) => e.innerText || '').join('\\n')"
        wait_for(lambda: driver.execute_script(texts).count("Matches (36)") >= 2)
        for title in ("training and validation", "loss", "accuracy"):
            assert title in driver.execute_script(texts)

        driver.get(f"{served}#hparams")
        header, rows = visible_table(driver)
        shown = ["model.dropout", "model.kernel_size", "seed"]
        places = [header.index(name) for name in shown]
        assert {tuple(row[place] for place in places) for row in rows} == {
            (f"{d}", f"{k}", f"{s}") for k, d, s in itertools.product(SIZES, DROPOUTS, SEEDS)
        }
        menu = [name for name in header if name not in ("Trial ID", "Show Metrics")]
        assert "accuracy/test" in menu
        for name, direction in itertools.product(menu, ("Ascending", "Descending")):
            choose(driver, "Sort by", name)
            choose(driver, "Direction", direction)
            place, backwards = header.index(name), direction == "Descending"

            def is_sorted(place: int = place, backwards: bool = backwards) -> bool:
                _, rows = visible_table(driver)
                values = [row[place] for row in rows]
                try:
                    return values == sorted(values, key=float, reverse=backwards)
                except ValueError:
                    return values == sorted(values, reverse=backwards)

            wait_for(is_sorted)
        assert console_errors(driver) == []


@pytest.mark.slow
def test_a_sweep_leaves_the_figures_of_each_run(sweep, served) -> None:
    """Also where they wait for the end, in the folder as in TensorBoard."""
    from mnist_bench.loggers.drawing import PICTURES

    runs = list(runs_below(sweep))
    assert len(runs) == 18
    for run in runs:
        assert {file.stem for file in (run / "figures").iterdir()} >= PICTURES.keys() - {"mistakes"}

    def tags() -> Any:
        with urllib.request.urlopen(f"{served}data/plugin/images/tags") as answer:
            found = json.load(answer)
        return len(found) == 18 and all("figures/confusion" in own for own in found.values())

    wait_for(tags)
