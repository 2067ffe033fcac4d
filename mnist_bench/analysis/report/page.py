"""A report as one page of HTML, which asks nothing of anywhere."""

import jinja2

from mnist_bench.analysis.report import sentences
from mnist_bench.analysis.report.build import Report, SectionReport
from mnist_bench.analysis.report.figures import (
    MOST_CANDIDATES,
    candidates_figure,
    curve_figures,
    effect_figures,
    map_figures,
)
from mnist_bench.analysis.report.outlook import rest_commands, use_commands
from mnist_bench.analysis.report.text import MOST_ROWS

TEMPLATE = "template.html.j2"


def as_page(report: Report, made: str) -> str:
    """Return the page; `made` says of when and of what it is. All that runs say is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mnist_bench.analysis.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        report=report,
        made=made,
        words=sentences,
        most_rows=MOST_ROWS,
        most_candidates=MOST_CANDIDATES,
        figures=_figures,
        use_commands=use_commands,
        rest_commands=rest_commands,
    )


def _figures(section: SectionReport) -> dict[str, object]:
    return {
        "effects": effect_figures(section),
        "maps": map_figures(section),
        "candidates": candidates_figure(section),
        "curves": curve_figures(section),
    }
