"""A run killed by SIGKILL at any moment goes on to the same numbers and weights, bit for bit."""

import multiprocessing
import random
import time

import pytest
import torch
from smoke import numbers

from tests.kill_run import MOMENTS, NUM_STEPS, Death, train

KILLED = -9


@pytest.fixture(scope="module")
def server():
    """Processes fork from one that has loaded torch, so that each starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.kill_run"])
    return context


def run(server, folder, death=None, after_s=None):
    """The exit code of one process; it is killed from outside after a while, if one is given."""
    process = server.Process(target=train, args=(str(folder), death))
    process.start()
    if after_s is not None:
        time.sleep(after_s)
        process.kill()
    process.join(120)
    return process.exitcode


@pytest.fixture(scope="module")
def straight(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert run(server, folder) == 0
    lines = numbers(folder)
    assert len(lines) == NUM_STEPS and len({line["loss"] for line in lines}) == NUM_STEPS
    return folder


def assert_same(folder, straight):
    assert numbers(folder) == numbers(straight)
    found, expected = (torch.load(one / "final.pt") for one in (folder, straight))
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert not list(folder.rglob("*.part"))


def test_a_run_killed_at_every_moment_in_turn_goes_on_to_the_same_numbers(
    server, straight, tmp_path
):
    folder = tmp_path / "run"
    for moment in MOMENTS:
        assert run(server, folder, Death(moment, 1)) == KILLED, moment
    assert run(server, folder) == 0
    assert_same(folder, straight)


@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_at_random_goes_on_to_the_same_numbers(seed, server, straight, tmp_path):
    draw, folder = random.Random(seed), tmp_path / "run"
    for _ in range(3):
        death = Death(draw.choice(sorted(MOMENTS)), draw.randint(1, 5))
        after_s = draw.choice([None, draw.uniform(0.0, 0.6)])
        if run(server, folder, None if after_s else death, after_s) == 0:
            break
    else:
        assert run(server, folder) == 0
    assert_same(folder, straight)
