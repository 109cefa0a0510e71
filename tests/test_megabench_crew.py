"""The killable crew: every item done once, and one that hangs or crashes costs only itself."""

import os
import time

import pytest

from verifiers.megabench.crew import Group, run_all


def act(shared, item):
    """What the workers do here; module-level, so that they can import it."""
    if item == "hang":
        time.sleep(60)
    if item == "die":
        os._exit(7)
    if item == "raise":
        raise ZeroDivisionError("by zero")
    return f"{shared}{item}"


def run(groups, **options):
    found = {}
    for done in run_all(act, groups, **options):
        assert (done.group, done.item) not in found
        found[done.group, done.item] = done.failure or done.result
    return found


def test_every_item_of_every_group_is_done_once():
    groups = [Group("a", range(40)), Group("b", ()), Group("c", range(3))]
    expected = {(0, n): f"a{n}" for n in range(40)} | {(2, n): f"c{n}" for n in range(3)}
    assert run(groups, workers=2) == expected


def test_an_item_that_hangs_dies_or_raises_costs_only_itself():
    found = run([Group("a", ["hang", 1, "die", 2, "raise", 3])], workers=1, limit_s=3.0)
    assert found == {
        (0, 0): "scoring took over 3 s",
        (0, 1): "a1",
        (0, 2): "scoring died, exit code 7",
        (0, 3): "a2",
        (0, 4): "scoring failed: ZeroDivisionError: by zero",
        (0, 5): "a3",
    }


def test_nothing_to_do_and_no_workers():
    assert run([], workers=2) == {}
    with pytest.raises(ValueError, match="workers is 0"):
        run([Group("a", [1])], workers=0)
