import os
import time

import pytest
from test_verifiers_cases import BOX, make

from verifiers import (
    VERIFIERS,
    FixedIou,
    ScoreContext,
    ScoringPool,
    Verdict,
    Verifier,
    score,
    score_batch,
)
from verifiers.pool import close_pools


def _misbehave(sample, response, context):
    """A verifier with every way to fail; sent to the workers by its name."""
    if response == "hang":
        while True:
            pass
    if response == "die":
        os._exit(3)
    if response == "raise":
        raise RuntimeError("broken verifier")
    return Verdict.scored(1.0)


BAD = Verifier(judge=_misbehave, check_params=lambda params: None, version="1")


@pytest.fixture(scope="module")
def pool():
    with ScoringPool(2, time_limit_s=1.0) as pool:
        yield pool


ITEMS = [(make("number", rf"\boxed{{{i}}}"), rf"\boxed{{{i - i % 2}}}") for i in range(300)] + [
    (make("detection", BOX), BOX),
    (make("detection", BOX), BOX.replace("90, 90", "90, 85")),
    (make("mathverify", r"\boxed{\frac{1}{2}}"), r"\boxed{\frac{2}{4}}"),
    (make("nobody", "x"), "y"),
]


def test_the_pool_gives_the_verdicts_of_one_process_in_order(pool):
    context = ScoreContext(iou_rule=FixedIou(0.5))
    alone = [score(sample, response, context) for sample, response in ITEMS]
    assert pool.score_batch(ITEMS, context) == alone
    assert score_batch(ITEMS, context, workers=0) == alone
    assert alone[301].score == pytest.approx(0.9375)


def test_an_empty_batch_gives_nothing(pool):
    assert pool.score_batch([]) == []


def test_a_hang_a_crash_and_an_exception_cost_only_their_own_item(monkeypatch):
    from multiprocessing import get_context

    from verifiers import pool as pool_module

    # The workers must know the misbehaving verifier: fork them from here.
    monkeypatch.setitem(VERIFIERS, "bad", BAD)
    monkeypatch.setattr(pool_module, "_process_context", lambda: get_context("fork"))
    bad = make("bad", "x")
    responses = ["fine", "hang", "fine", "die", "raise", "fine"] + ["fine"] * 40
    started = time.monotonic()
    with ScoringPool(2, time_limit_s=0.5) as pool:
        verdicts = pool.score_batch([(bad, response) for response in responses])
    assert time.monotonic() - started < 10
    statuses = [verdict.status for verdict in verdicts]
    assert statuses == ["ok", "timeout", "ok", "fault", "fault", "ok"] + ["ok"] * 40
    for verdict in (verdicts[1], verdicts[3], verdicts[4]):
        assert (verdict.score, verdict.reward, verdict.verifier) == (None, None, "bad")
    assert verdicts[1].reason == "no verdict within 0.5 s"
    assert "broken verifier" in verdicts[4].reason


def test_an_exception_in_this_process_is_a_fault_as_well(monkeypatch):
    monkeypatch.setitem(VERIFIERS, "bad", BAD)
    (verdict,) = score_batch([(make("bad", "x"), "raise")])
    assert (verdict.score, verdict.status) == (None, "fault")


def test_workers_stay_warm_between_batches():
    try:
        score_batch(ITEMS[:4], workers=1)
        started = time.monotonic()
        assert score_batch(ITEMS[:4], workers=1) == [score(*item) for item in ITEMS[:4]]
        assert time.monotonic() - started < 0.5
    finally:
        close_pools()


def test_a_pool_needs_a_worker_and_a_limit():
    with pytest.raises(ValueError, match="workers is 0"):
        ScoringPool(0)
    with pytest.raises(ValueError, match="time_limit_s is 0"):
        ScoringPool(1, time_limit_s=0)
