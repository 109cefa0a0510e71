"""Renders a run directory's `report.html`."""

from __future__ import annotations

import json
import os
import re
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vl.report import curves, gallery, tables
from vl.report import numbers_in_words as words
from vl.report.charts import DotChart, dot_chart
from vl.report.run_view import PHASE_NAMES, RunView, read_run
from vl.rundir import CORRECT_FROM, RunDirError

ROWS_PER_SOURCE = 12
"""Default of how many held-out rows of each source the gallery shows."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


def render_report(run_dir: str | Path, *, rows_per_source: int = ROWS_PER_SOURCE) -> Path:
    """Write `report.html` into the run directory and return its path.

    The run may still be going on: the page then shows what there is. The file needs nothing else
    and makes no request.

    Raises: RunDirError if the directory is missing or holds no run.
    """
    directory = Path(run_dir)
    if not (directory / "config.json").exists() and not (directory / "metrics.jsonl").exists():
        raise RunDirError(
            f"{directory}: found neither config.json nor metrics.jsonl, so this is not a run "
            "directory. Give the directory that was passed to vl train --out"
        )
    page = render_page(read_run(directory), rows_per_source=rows_per_source)
    path = directory / "report.html"
    part = path.with_suffix(".part")
    part.write_text(page, encoding="utf-8")
    os.replace(part, path)
    return path


def render_page(run: RunView, *, rows_per_source: int = ROWS_PER_SOURCE) -> str:
    """The report of a run as HTML text."""
    environment = make_environment()
    environment.filters |= {
        "percent": words.percent,
        "signed": words.signed_percent,
        "between": words.between,
        "duration": words.duration,
        "measure_name": words.measure_name,
    }
    compared = gallery.compared_phases(run)
    rows = [] if compared is None else gallery.choose_rows(run.rows, *compared, rows_per_source)
    cards = gallery.make_cards(run, rows)
    result_tables = tables.result_tables(run)
    measure = None if run.evaluation is None else words.headline_measure(run.evaluation)
    return environment.get_template("report.html.j2").render(
        run=run,
        style=asset("report.css"),
        script=asset("report.js"),
        phase_names=PHASE_NAMES,
        notes=[] if run.evaluation is None else run.evaluation.notes,
        evaluated=[] if run.evaluation is None else list(run.evaluation.phases),
        sentences=words.verdict(run),
        measure=measure,
        tables=result_tables,
        dot_charts=[(table.measure, _dots(table)) for table in result_tables],
        curve_sets=curves.source_curves(run),
        loss_panels=curves.loss_panels(run),
        overall_panels=curves.overall_panels(run),
        smoothing_steps=curves.smoothing_steps(run),
        unscored_rows=tables.unscored_rows(run),
        seconds_rows=tables.seconds_rows(run),
        step_seconds=tables.step_seconds(run),
        cards=cards,
        pictures=_pictures(cards),
        num_rows=len(run.rows),
        rows_per_source=rows_per_source,
        compared=compared,
        correct_from=CORRECT_FROM,
        config=None if run.config is None else json.dumps(run.config, indent=2),
    )


def make_environment() -> Environment:
    """Where the pages' templates are rendered: everything escaped, nothing undefined."""
    return Environment(
        loader=PackageLoader("vl.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def asset(name: str) -> Markup:
    """A script or style of ours, for inlining; it must not close its own element."""
    return Markup((resources.files("vl.report") / name).read_text(encoding="utf-8"))


def _printable(value: object) -> object:
    """Text with a sign for each control character and half character, which HTML cannot hold."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _UNPRINTABLE.sub(lambda found: _sign_of(ord(found.group())), value)


def _sign_of(code: int) -> str:
    return chr(0x2400 + code) if code < 0x20 else "\N{REPLACEMENT CHARACTER}"


def _dots(table: tables.ResultTable) -> DotChart:
    return dot_chart(
        [
            (row.name, row.kind, list(zip(table.phases, row.phases, strict=True)))
            for row in table.rows
            if row.kind != "source"
        ]
    )


def _pictures(cards: list[gallery.Card]) -> list[gallery.Picture]:
    found = {card.picture.key: card.picture for card in cards if card.picture is not None}
    return list(found.values())
