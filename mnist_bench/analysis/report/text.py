"""A report as Markdown, as a table for other programs, and as JSON."""

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from mnist_bench.analysis import markdown
from mnist_bench.analysis.images import OnImages
from mnist_bench.analysis.report import sentences
from mnist_bench.analysis.report.build import Report, Row, SectionReport
from mnist_bench.analysis.report.figures import map_title
from mnist_bench.analysis.report.outlook import rest_commands, use_commands
from mnist_bench.analysis.settings import as_typed

# Of more settings, report.md and report.html show the leading ones; report.csv has all.
MOST_ROWS = 200
Table = tuple[Sequence[str], Sequence[Sequence[str]]]
# Means over the seeds, in report.csv and JSON.
FIGURES = (
    *("test_accuracy", "test_loss", "test_errors", "val_accuracy", "val_loss", "train_accuracy"),
    *("train_loss", "parameters", "epochs", "train_seconds", "images_per_second"),
)


def as_markdown(report: Report) -> str:
    parts = ["# Report", markdown.paragraph(sentences.overview(report))]
    if report.pairs:
        parts += ["## Pairs that were named", markdown.paragraph(sentences.PAIRS)]
        parts += [_table(sentences.pairs_table(report))]
        parts += [_table(sentences.pair_images_table(report))]
        parts += [_list([told for told in report.pair_outlooks if told])]
    for section in report.sections:
        parts += _section(section)
    if left_out := sentences.uncounted(report):
        parts += ["## Not counted", _list(left_out)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(report: SectionReport) -> list[str]:
    parts = [
        f"## {_no_html(report.section.title)}",
        markdown.paragraph(sentences.same_of_all(report)),
    ]
    if told := sentences.missing(report):
        parts.append(f"**{told}**")
    parts.append(_list(report.notes))
    if report.effects:
        parts += ["### What each key does"]
        parts += [f"- {told}" for told in sentences.lessons(report)]
        parts.append(markdown.paragraph(sentences.effects_note(report)))
        parts.append(_table(sentences.effects_table(report)))
    for found in report.maps:
        short = report.section.short
        title = map_title(found, short)
        names = f"{short[found.row_key]} by {short[found.column_key]}"
        parts.append(f"### {names}{f', {title}' if title else ''}")
        rows = [
            [as_typed(value), *(report.measure.estimate(c.estimate) if c else "-" for c in line)]
            for value, line in zip(found.rows, found.cells, strict=True)
        ]
        parts.append(markdown.table([names, *map(as_typed, found.columns)], rows))
    if told := sentences.verdict(report):
        parts += ["### Which may be the best", markdown.paragraph(told)]
    parts.append(_list(report.outlook))
    if (images := sentences.images_table(report))[1]:
        parts += [markdown.paragraph(sentences.ON_IMAGES), _table(images)]
    parts += ["### Settings", markdown.paragraph(sentences.under_the_table(report))]
    named = len(sentences.setting_columns(report))
    parts.append(_table(sentences.settings_table(report, MOST_ROWS), named))
    parts += ["### Best run", markdown.paragraph(sentences.best_run(report))]
    commands = [*use_commands(report), *rest_commands(report)]
    parts.append(_list([f"{what}: `{command}`" for what, command in commands]))
    return parts


def _table(found: Table, text_columns: int = 1) -> str:
    header, rows = found
    return markdown.table(header, rows, text_columns) if rows else ""


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_no_html(line)}" for line in lines)


def _no_html(text: str) -> str:
    """Return text that a name in it does not make HTML of; code between backticks stays."""
    parts = text.split("`")
    return "`".join(p if n % 2 else p.replace("<", "&lt;") for n, p in enumerate(parts))


# --- For other programs -----------------------------------------------------------------------


def as_csv(report: Report) -> str:
    """Return a row for each setting of each section, the best mean first; every number whole."""
    keys = list(dict.fromkeys(key for s in report.sections for key in s.section.axes))
    metric = report.measure.key
    header = ["dataset", "model", *(key for key in keys if key != "model"), "seeds"]
    header += [f"{metric}_{part}" for part in ("mean", "low", "high", "std")]
    header += ["behind_best_low", "behind_best_high", "may_be_best"]
    header += [f"mean_{key}" for key in FIGURES] + ["devices", "runs"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for section in report.sections:
        for row in section.rows:
            told = _plain(row, section)
            values = {key: as_typed(value) for key, value in row.setting.values.items()}
            settings = [values.get(key) for key in keys if key != "model"]
            behind = told["behind_best"] or [None, None]
            writer.writerow(
                [
                    *(told["dataset"], told["model"], *settings, " ".join(map(str, told["seeds"]))),
                    *(told[part] for part in ("mean", "low", "high", "std")),
                    *(*behind, told["may_be_best"], *told["means"].values(), row.devices),
                    " ".join(told["runs"]),
                ]
            )
    return file.getvalue()


def _plain(row: Row, report: SectionReport) -> dict[str, Any]:
    mean, reach = row.estimate.mean, row.estimate.reach
    means = {key: row.mean(key) for key in FIGURES}
    return {
        "dataset": report.section.dataset,
        "model": str(row.setting.runs[0].summary.get("model")),
        "settings": dict(row.setting.values),
        "seeds": row.setting.seeds,
        "mean": mean,
        "low": None if reach is None else mean - reach,
        "high": None if reach is None else mean + reach,
        "std": row.std,
        "behind_best": None if row.behind is None else [row.behind.low, row.behind.high],
        "may_be_best": row.is_candidate,
        "means": {key: value if math.isfinite(value) else None for key, value in means.items()},
        "runs": [str(run.path) for run in row.setting.runs],
    }


def as_json(report: Report) -> str:
    """Return all conclusions as one object; accuracies are fractions."""
    content = {
        "metric": report.measure.key,
        "runs": report.runs,
        "sections": [_plain_section(section) for section in report.sections],
        "pairs": [
            {
                "first": dict(pair.first.values),
                "second": dict(pair.second.values),
                "difference": pair.difference.mean,
                "interval": _ends(pair.difference.interval),
                "p_value": pair.difference.p_value,
                "p_holm": pair.p_holm,
                "on_images": pair.images and _on_images(pair.images),
                "outlook": told,
            }
            for pair, told in zip(report.pairs, report.pair_outlooks, strict=True)
        ],
        "not_counted": [{"run": str(run.path), "why": why} for run, why in report.uncounted],
    }
    return json.dumps(content, indent=1)


def _plain_section(report: SectionReport) -> dict[str, Any]:
    return {
        "dataset": report.section.dataset,
        "models": report.section.models,
        "axes": report.section.axes,
        "missing": [str(run.path) for run in report.section.unfinished],
        "notes": report.notes,
        "pooled_deviation": report.chance.pooled.std,
        "degrees_of_freedom": report.chance.pooled.freedom,
        "intervals_are_pooled": report.chance.is_pooled,
        "effects": [
            {
                "key": effect.key,
                "p_value": effect.p_value,
                "levels": [
                    {"value": level.value, "mean": level.mean.mean, "reach": level.mean.reach}
                    for level in effect.levels
                ],
            }
            for effect in report.effects
        ],
        "settings": [
            {
                **_plain(row, report),
                "leader_less_it_on_images": row.images
                and {**_on_images(row.images), "p_holm": row.images_p},
            }
            for row in report.rows
        ],
        "outlook": report.outlook,
        "best_run": str(report.best_run.path),
        "commands": dict([*use_commands(report), *rest_commands(report)]),
    }


def _ends(between: Any) -> list[float] | None:
    return None if between is None else [between.low, between.high]


def _on_images(found: OnImages) -> dict[str, Any]:
    difference = found.difference
    return {
        "images": found.images,
        "difference": difference.mean,
        "interval": _ends(difference.interval),
        "p_value": found.p_value,
    }
