"""What the scoring pool says about responses: the same as one process, or why it cannot say."""

import resource
import sys
import types
from dataclasses import replace

import pytest
from test_verifiers_cases import BOX, make

from data_specs import ImageRef
from verifiers import (
    VERIFIERS,
    FixedIou,
    ScoreContext,
    ScoringPool,
    Verdict,
    Verifier,
    score_batch,
    score_many,
)
from verifiers.pool_job import Job
from verifiers.pool_wire import pack_row, unpack_row

LIMIT_S = 0.3


@pytest.fixture(scope="module")
def pool():
    with ScoringPool(
        2, time_limit_s=LIMIT_S, memory_limit_mb=64, preload=("pool_verifiers",)
    ) as pool:
        yield pool


@pytest.fixture
def since(pool):
    """What the pool's counters gained since the test began."""
    before = pool.stats()
    return lambda name: getattr(pool.stats(), name) - getattr(before, name)


BAD = make("bad", "x")
BAD_MANY = make("bad_many", "x")
ITEMS = [(make("number", rf"\boxed{{{i}}}"), rf"\boxed{{{i - i % 2}}}") for i in range(300)] + [
    (make("detection", BOX), BOX),
    (make("detection", BOX), BOX.replace("90, 90", "90, 85")),
    (make("mathverify", r"\boxed{\frac{1}{2}}"), r"\boxed{\frac{2}{4}}"),
]


def statuses(verdicts):
    return [verdict.status for verdict in verdicts]


def test_the_pool_gives_the_verdicts_of_one_process_in_order(pool):
    context = ScoreContext(iou_rule=FixedIou(0.5))
    alone = score_many(ITEMS, context)
    assert pool.score_batch(ITEMS, context) == alone
    assert score_batch(ITEMS, context, workers=0) == alone
    assert alone[301].score == pytest.approx(0.9375)


def test_a_verifier_that_nobody_knows_is_a_bad_reference(pool):
    (verdict,) = pool.score_batch([(make("nobody", "x"), "y")])
    assert (verdict.score, verdict.status) == (None, "bad_reference")
    assert verdict.reason.startswith("verifier 'nobody' is not registered; known: bad,")


def test_an_empty_batch_gives_nothing(pool):
    assert pool.score_batch([]) == []


@pytest.mark.parametrize("hostile", ["hang", "burn 9"])
def test_a_hang_among_a_thousand_answers_costs_itself_only(pool, since, hostile):
    items = [*ITEMS, *ITEMS[:197], (BAD, hostile), *ITEMS, *ITEMS[:196]]
    verdicts = pool.score_batch(items)
    assert verdicts[:500] + verdicts[501:] == score_many(items[:500] + items[501:])
    assert verdicts[500] == Verdict(
        score=None,
        status="timeout",
        reason="no verdict within 0.3 s",
        verifier="bad",
        version="7",
    )
    assert verdicts[500].seconds >= LIMIT_S
    assert [since(name) for name in ("scored", "timeouts", "restarts")] == [1000, 1, 1]


def test_many_hangs_each_cost_themselves(pool, since):
    responses = ["fine", "hang", "hang", "fine"] * 3
    verdicts = pool.score_batch([(BAD, response) for response in responses])
    assert statuses(verdicts) == ["ok", "timeout", "timeout", "ok"] * 3
    assert since("timeouts") == 6


def test_an_item_that_kills_its_worker_twice_is_a_fault(pool, since):
    responses = ["fine"] * 20 + ["exit", "fine", "crash"] + ["fine"] * 20
    verdicts = pool.score_batch([(BAD, response) for response in responses])
    assert statuses(verdicts) == ["ok"] * 20 + ["fault", "ok", "fault"] + ["ok"] * 20
    assert verdicts[20].reason == "workers died on it, the last with exit status 3"
    assert verdicts[22].reason == "workers died on it, the last with signal 11 (SIGSEGV)"
    assert (verdicts[20].score, verdicts[20].reward, verdicts[20].verifier) == (None, None, "bad")
    assert since("restarts") == 4


def test_an_item_whose_worker_was_killed_once_gets_its_verdict(pool, since, tmp_path):
    items = [(BAD, "fine")] * 10 + [(BAD, f"crash_once {tmp_path / 'marker'}")]
    assert statuses(pool.score_batch(items)) == ["ok"] * 11
    assert since("restarts") == 1


def test_an_exception_of_a_verifier_is_a_fault_of_its_item(pool, since):
    verdicts = pool.score_batch([(BAD, r) for r in ("raise", "fine", "strange")])
    assert statuses(verdicts) == ["fault", "ok", "fault"]
    assert verdicts[0].reason == "verifier failed: RuntimeError: broken verifier"
    assert "verifier failed: TypeError" in verdicts[2].reason
    assert [type(verdict.score) for verdict in verdicts] == [type(None), float, type(None)]
    assert since("restarts") == 0


def test_a_response_that_needs_too_much_memory_is_a_fault_that_names_the_limit(pool, since):
    verdicts = pool.score_batch([(BAD, "eat 1"), (BAD, "eat 400"), (BAD, "eat 1000000")])
    assert statuses(verdicts) == ["ok", "fault", "fault"]
    assert verdicts[1].reason == "needs more memory than memory_limit_mb=64 allows"
    assert since("restarts") == 0
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert resource.getrlimit(resource.RLIMIT_AS) == unlimited


def test_a_worker_that_has_grown_is_replaced_between_pieces(pool):
    pids = [pool.score_batch([(BAD, "eat 40")])[0].parts["pid"] for _ in range(4)]
    assert len(set(pids)) == 4


@pytest.mark.parametrize("hostile", ["hang", "burn 9", "exit", "raise"])
def test_items_judged_together_fail_one_by_one(pool, hostile):
    items = [(BAD_MANY, "fine")] * 30 + [(BAD_MANY, hostile)] + [(BAD_MANY, "fine")] * 30
    verdicts = pool.score_batch(items)
    failed = "timeout" if hostile in ("hang", "burn 9") else "fault"
    assert statuses(verdicts) == ["ok"] * 30 + [failed] + ["ok"] * 30
    assert {verdict.version for verdict in verdicts} <= {"8", ""}


def test_verdicts_too_long_for_the_pipe_arrive(pool):
    sizes = [5_000] * 40 + [3_000_000, 1]
    verdicts = pool.score_batch([(BAD, f"long {size}") for size in sizes])
    assert [len(verdict.reason) for verdict in verdicts] == sizes


def test_responses_too_long_for_the_socket_arrive(pool):
    long = "x" * 3_000_000 + r"\boxed{1}"
    items = [(make("number", r"\boxed{1}"), long)] * 4
    assert pool.score_batch(items) == score_many(items)


def test_pictures_stay_and_a_shared_row_travels_once():
    sample = replace(BAD, images=(ImageRef(data=b"p" * 1_000_000),), extra={"k": "v" * 5_000})
    packed = pack_row(sample)
    assert unpack_row(packed) == replace(sample, images=())
    job = Job([(sample, str(index)) for index in range(64)], ScoreContext())
    job.sort({})
    message = job.take(64).message(0.05)
    assert len(packed) < len(message) < len(packed) + 64 * 20
    assert job.rows == [packed]


def test_a_row_that_cannot_be_sent_is_an_error_of_the_caller(pool):
    bad = replace(BAD, id="7", where="x.parquet row 7", extra={"f": lambda: 0})
    with pytest.raises(ValueError, match=r"x.parquet row 7 \(id 7\): extra or params cannot be"):
        pool.submit([(BAD, "fine"), (bad, "fine")])
    with pytest.raises(TypeError, match="response 1 is None; allowed: a str"):
        pool.submit([(BAD, "fine"), (BAD, None)])


def test_rows_and_responses_made_on_the_fly_are_not_mixed_up(pool):
    class Text(str):
        pass

    items = ((make("number", rf"\boxed{{{i}}}"), Text(rf"\boxed{{{i}}}")) for i in range(200))
    assert [verdict.score for verdict in pool.score_batch(items)] == [1.0] * 200


def test_a_row_that_workers_cannot_read_is_an_error_of_the_caller(pool, monkeypatch):
    module = types.ModuleType("only_here")
    exec("class Thing: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    strange = replace(BAD, extra={"thing": module.Thing()})
    with pytest.raises(ValueError, match="No module named 'only_here'"):
        pool.score_batch([(BAD, "fine")] * 100 + [(strange, "fine")])
    assert statuses(pool.score_batch([(BAD, "fine")])) == ["ok"]


def test_a_verifier_of_this_process_only_is_an_error_of_the_caller(pool, monkeypatch):
    here = Verifier(judge=lambda *_: Verdict.scored(1.0), check_params=lambda _: None, version="1")
    monkeypatch.setitem(VERIFIERS, "here", here)
    with pytest.raises(ValueError, match="verifier 'here' is registered in this process only"):
        pool.score_batch([(make("here", "x"), "fine")])


def test_an_exception_in_this_process_is_a_fault_as_well(monkeypatch):
    def judge(sample, response, context):
        raise RuntimeError("broken verifier")

    bad = Verifier(judge=judge, check_params=lambda params: None, version="1")
    monkeypatch.setitem(VERIFIERS, "bad", bad)
    (verdict,) = score_batch([(make("bad", "x"), "raise")])
    assert (verdict.score, verdict.status) == (None, "fault")


def test_slow_items_do_not_hold_up_others_and_closing_ends_them():
    with ScoringPool(1, time_limit_s=60, preload=("pool_verifiers",)) as pool:
        slow = pool.submit([(BAD, "hang"), (BAD, "fine"), (BAD, "hang"), (BAD, "hang")])
        assert pool.score_batch(ITEMS) == score_many(ITEMS)
        stats = pool.stats()
        assert not slow.done()
        assert (stats.scored, stats.timeouts) == (len(ITEMS) + 1, 0)
        assert stats.num_workers <= 2
    with pytest.raises(RuntimeError, match="closed before all responses were judged"):
        slow.result()
    with pytest.raises(RuntimeError, match="is closed"):
        pool.submit(ITEMS)


def test_a_cancelled_batch_leaves_the_queue():
    with ScoringPool(1, time_limit_s=60, preload=("pool_verifiers",)) as pool:
        waiting = pool.submit([(BAD, "hang")] * 100)  # until the processes are there
        assert pool.stats().queued == 100
        assert waiting.cancel()
        pool.score_batch([(BAD, "fine")])
        stats = pool.stats()
        assert (stats.queued, stats.scored, stats.restarts) == (0, 1, 0)


def test_a_pool_needs_a_worker_and_limits():
    with pytest.raises(ValueError, match="workers is 0"):
        ScoringPool(0)
    with pytest.raises(ValueError, match="time_limit_s is 0"):
        ScoringPool(1, time_limit_s=0)
    with pytest.raises(ValueError, match="memory_limit_mb is 0"):
        ScoringPool(1, memory_limit_mb=0)
