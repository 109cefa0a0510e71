"""Real table rows for charts and science: runs of consecutive values, elements."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

from tasks.packaged import packaged_file

HELDOUT_STOCKS = ("IBM", "GOOG")
"""Companies whose prices only the test split draws."""
_TRAIN_FRAC = 0.8
"""The first part of every table is for training, the rest held out."""

Columns = dict[str, list[float]]


class Element(NamedTuple):
    """A chemical element as its tile prints it."""

    number: int
    symbol: str
    mass: int
    """Atomic mass rounded to an integer; the tile calls it the mass number."""


class Run(NamedTuple):
    """Consecutive values of one column of one table."""

    table: str
    values: tuple[float, ...]


@lru_cache(maxsize=2)
def bar_columns(*, heldout: bool) -> list[Run]:
    """The split's rows of every numeric column we chart, as long runs."""
    runs: list[Run] = []
    for table, values in _columns():
        cut = int(len(values) * _TRAIN_FRAC)
        part = values[cut:] if heldout else values[:cut]
        runs.append(Run(table, tuple(part)))
    return runs


@lru_cache(maxsize=2)
def stock_columns(*, heldout: bool) -> list[Run]:
    """Monthly prices of the split's companies."""
    prices: Columns = {}
    for row in _csv("vega_datasets", "_data/stocks.csv"):
        prices.setdefault(row["symbol"], []).append(float(row["price"]))
    return [
        Run(f"stocks {symbol}", tuple(values))
        for symbol, values in sorted(prices.items())
        if (symbol in HELDOUT_STOCKS) == heldout
    ]


LAST_ELEMENT = 36
"""Beyond krypton the tiles only add three-digit numbers to read."""


@lru_cache(maxsize=2)
def elements(*, heldout: bool) -> list[Element]:
    """Hydrogen to krypton, of one split: lithium and every fifth element on are held out."""
    rows = _csv("bokeh_sampledata", "_data/elements.csv")
    found = [
        Element(
            int(row["atomic number"]),
            row["symbol"].strip(),
            round(float(row["atomic mass"].strip("[]() "))),
        )
        for row in rows
    ]
    return [e for e in found if e.number <= LAST_ELEMENT and (e.number % 5 == 3) == heldout]


def _columns() -> Iterator[tuple[str, list[float]]]:
    wanted = {
        "cars": ("Miles_per_Gallon", "Horsepower", "Weight_in_lbs", "Acceleration"),
        "barley": ("yield",),
        "wheat": ("wheat", "wages"),
        "driving": ("miles", "gas"),
        "crimea": ("disease", "other", "wounds"),
    }
    for table, names in wanted.items():
        rows = json.loads(_text("vega_datasets", f"_data/{table}.json"))
        for name in names:
            yield f"{table} {name}", [float(r[name]) for r in rows if r.get(name) is not None]
    weather = _csv("vega_datasets", "_data/seattle-weather.csv")
    for name in ("precipitation", "temp_max", "wind"):
        yield f"seattle-weather {name}", [max(0.0, float(row[name])) for row in weather]
    jobs = _csv("vega_datasets", "_data/us-employment.csv")
    names = ("construction", "manufacturing", "retail_trade", "information", "government")
    yield "us-employment", [float(row[name]) for row in jobs[::6] for name in names]
    power = _csv("vega_datasets", "_data/iowa-electricity.csv")
    yield "iowa-electricity", [float(row["net_generation"]) for row in power]
    world = _csv("bokeh_sampledata", "_data/gapminder.csv.gz")
    for name in ("fertility", "life_expectancy"):
        yield (
            f"gapminder {name}",
            [
                float(row[name])
                for row in world
                if row[name] and row["year"] in ("1975", "1995", "2010")
            ],
        )


def _csv(package: Literal["vega_datasets", "bokeh_sampledata"], path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(_text(package, path))))


def _text(package: str, path: str) -> str:
    raw = packaged_file(package, path, package.replace("_", "-")).read_bytes()
    return (gzip.decompress(raw) if path.endswith(".gz") else raw).decode("utf-8")
