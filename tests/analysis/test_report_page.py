"""report.html in a real browser: both themes, a phone and a desk, nothing asked of anywhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from benchmarks.reading import write_sweep
from mnist_bench.analysis.report import Options, report
from tests.support.browser import console_errors, open_browser, prefer, requests, resize

pytestmark = pytest.mark.needs_browser
AXES = {
    "model.kernel_size": [3, 5, 7],
    "model.dropout": [0.0, 0.25, 0.5],
    "optimizer.weight_decay": [0.0, 0.01],
}
# What a folder may be called, and must not do.
HOSTILE = "<img src=x onerror=document.title='stolen'>"
SIZES = [(400, "light"), (400, "dark"), (1400, "light"), (1400, "dark")]


def mean(settings: dict[str, float]) -> float:
    kernel, dropout = settings["model.kernel_size"], settings["model.dropout"]
    return 0.985 + 0.0004 * kernel - 0.006 * (dropout - 0.25) ** 2


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a 3 x 3 x 2 sweep with three seeds."""
    folder = tmp_path_factory.mktemp("page")
    runs = write_sweep(folder / HOSTILE, AXES, 3, mean, images=1000)
    summary = (runs[0] / "summary.json").read_text()
    (runs[0] / "summary.json").write_text(summary.replace('"completed"', '"interrupted"'))
    compare = ("kernel_size=3,5 dropout=0.25",)
    report([folder / HOSTILE], Options(compare=compare), out=folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_it_fits_asks_for_nothing_and_complains_of_nothing(
    browser: Chrome, page: Path, width: int, scheme: str
) -> None:
    resize(browser, width, 900)
    prefer(browser, scheme)
    console_errors(browser), requests(browser)  # of the page before
    browser.get(page.as_uri())
    assert requests(browser) == [page.as_uri()]
    assert console_errors(browser) == []
    assert browser.title == "Report: cnn5x5_single on mnist"
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    # Nothing but tables and maps, which scroll by themselves, reaches beyond the page.
    wider = browser.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') &&"
        " e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 90))"
    )
    assert wider == []


# WCAG 2.1, "contrast ratio": of text and what is behind it, by relative luminance.
CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
function light(colour) {
  canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function ratio(a, b) {
  const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}
const page = getComputedStyle(document.body).backgroundColor;
const found = [];
for (const svg of document.querySelectorAll('svg')) {
  let behind = page;
  for (const mark of svg.children) {
    const style = getComputedStyle(mark);
    if (mark.matches('rect.cell')) behind = style.fill;
    if (mark.tagName == 'text')
      found.push([mark.textContent, ratio(style.fill, mark.matches('.in-cell') ? behind : page)]);
  }
}
for (const cell of document.querySelectorAll('td, th, p, li, code'))
  if (!cell.closest('.warning')) found.push([cell.textContent.slice(0, 40),
    ratio(getComputedStyle(cell).color, page)]);
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_and_none_is_tiny(browser: Chrome, page: Path, scheme: str) -> None:
    resize(browser, 400, 900)
    prefer(browser, scheme)
    browser.get(page.as_uri())
    found = browser.execute_script(CONTRAST)
    assert len(found) > 200
    assert [text for text, ratio in found if ratio < 4.5] == []
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('svg text')].map(t => parseFloat("
        "getComputedStyle(t).fontSize) * t.getScreenCTM().a || 12)"
    )
    assert min(size for size in sizes if size) >= 10.5


def test_the_themes_differ_and_figures_follow_them(browser: Chrome, page: Path) -> None:
    def colours(scheme: str) -> list[str]:
        prefer(browser, scheme)
        browser.get(page.as_uri())
        return browser.execute_script(
            "return [getComputedStyle(document.body).backgroundColor, ...['circle.mean', "
            "'rect.cell', 'path.curve.val', 'svg text.tick'].map(s => getComputedStyle("
            "document.querySelector(s))[s.includes('curve') ? 'stroke' : 'fill'])]"
        )

    light, dark = colours("light"), colours("dark")
    assert all(a != b for a, b in zip(light, dark, strict=True))


def test_it_shows_effects_maps_candidates_and_curves(browser: Chrome, page: Path) -> None:
    browser.get(page.as_uri())
    titles = [e.text for e in browser.find_elements("css selector", "h3")]
    places = [titles.index(title) for title in (
        "What each key does", "test accuracy, % by kernel_size and dropout",
        "Which may be the best", "The same networks on the test images", "Learning curves",
        "Settings", "Best run, and what to do next",
    )]  # fmt: skip
    assert places == sorted(places)
    counts = browser.execute_script(
        "return ['circle.mean', 'rect.cell', 'path.curve.train', 'path.band.val', 'rect.candidate']"
        ".map(selector => document.querySelectorAll(selector).length)"
    )
    levels, cells, curves, bands, candidates = counts
    assert (levels, cells) == (8, 27)  # 3 + 3 + 2 values; the averaged map and one for each decay
    assert curves == bands == 9
    assert 0 < candidates < 18
    text = browser.find_element("tag name", "main").text
    assert "Incomplete: 1 of 54 runs are missing" in text
    assert HOSTILE in text
