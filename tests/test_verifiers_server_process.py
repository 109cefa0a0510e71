"""`vl serve` itself: real servers, real workers, some of them killed."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from serving import read_metrics, vl_serve
from test_verifiers_cases import BOX, make

from verifiers import AveragedIou, FixedIou, ScoreContext, StagedIou, score_many
from verifiers.client import RewardClient

TOKEN = "0123456789abcdefghij"
NEAR = BOX.replace("90, 90", "90, 85")
ORDINARY = [(make("number", f"\\boxed{{{n}}}"), f"\\boxed{{{n - n % 2}}}") for n in range(40)] + [
    (make("mathverify", f"\\boxed{{\\frac{{{n}}}{{3}}}}"), f"\\boxed{{\\frac{{{2 * n}}}{{6}}}}")
    for n in range(8)
]
MIXED = [
    *ORDINARY,
    (make("detection", BOX), BOX),
    (make("detection", BOX), NEAR),
    (make("detection", BOX, det_reward_ratio={"map": 1.0}), NEAR),
    (make("text", "\\boxed{EXIT}"), "\\boxed{EXIT\u2028}"),
    (make("choice", "\\boxed{B}"), "\\boxed{B} or \\boxed{C}"),
    (make("number", "\\boxed{7}", tolerance="none"), "\\boxed{7}"),
    (make("mathverify", ""), "\\boxed{7}"),
    (make("mathverify", "\\boxed{7}"), "\\boxed{9^{9^{9^{9}}}}"),
    (make("mathverify", "\\boxed{7}"), "x" * 500_000),
    (make("number", "\\boxed{7}"), "\x00\u2028\U0001f600"),
    (make("number", "\\boxed{7}"), ""),
]

PLUGIN = """
import time
from verifiers import Verdict, Verifier

def judge(sample, response, context):
    if response == "hang":
        while True:
            pass
    time.sleep(float(response))
    return Verdict.scored(1.0)

VERIFIER = Verifier(judge=judge, check_params=lambda params: None, version="9")
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A verifier of another package, `slow`, that sleeps as long as the response says."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "slow_plugin.py").write_text(PLUGIN)
    info = folder / "slow_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vl_triune.verifiers]\nslow = slow_plugin:VERIFIER\n")
    paths = (str(folder), os.environ.get("PYTHONPATH", ""))
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.fixture(scope="module")
def server(environment):
    with vl_serve("--workers", 2, "--time-limit-s", 1, env=environment) as server:
        yield server


def metrics_of(url):
    samples = read_metrics(httpx.get(f"{url}/metrics", trust_env=False).text)
    return lambda name, **labels: samples[f"vl_reward_{name}", frozenset(labels.items())]


@pytest.mark.parametrize(
    "context",
    [
        ScoreContext(),
        ScoreContext(progress=0.05, iou_rule=StagedIou(((0.1, 0.5), (1.0, 0.99)))),
        ScoreContext(iou_rule=FixedIou(0.5)),
        ScoreContext(iou_rule=AveragedIou((0.5, 0.99))),
    ],
)
def test_verdicts_are_those_of_this_process(server, context):
    with RewardClient([server.url]) as client:
        verdicts = client.score_batch(MIXED, context)
    for verdict, true, (_, response) in zip(
        verdicts, score_many(MIXED, context), MIXED, strict=True
    ):
        assert verdict == true, response[:50]


def test_the_rule_and_the_progress_reach_the_verifier(server):
    rule = StagedIou(((0.1, 0.5), (1.0, 0.99)))
    with RewardClient([server.url]) as client:
        scores = [
            client.score_batch(
                [(make("detection", BOX), NEAR)], ScoreContext(progress=progress, iou_rule=rule)
            )[0].score
            for progress in (0.05, 0.5)
        ]
    assert scores == [pytest.approx(0.9375), 0.0]  # 75 of 80 rows of pixels


def test_hanging_answers_cost_themselves_and_nobody_waits_for_them(server):
    hanging = [(make("slow", "x"), "hang")] * 3
    before = metrics_of(server.url)("pool_timeouts_total")
    with RewardClient([server.url]) as client, ThreadPoolExecutor(1) as thread:
        bombs = thread.submit(client.score_batch, hanging)
        rounds = 0
        while not bombs.done():
            assert client.score_batch(ORDINARY) == score_many(ORDINARY)
            rounds += 1
    assert rounds > 1
    for verdict in bombs.result():
        assert (verdict.score, verdict.reward, verdict.status) == (None, None, "timeout")
        assert (verdict.verifier, verdict.version) == ("slow", "9")
    metric = metrics_of(server.url)
    assert metric("pool_timeouts_total") == before + 3
    assert metric("items_total", verifier="slow", status="timeout") == 3
    assert metric("queue_items") == metric("items_in_flight") == 0


def descendants(pid):
    """Process ids of all children, theirs included, deepest last."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def hammer(client, stop, items, num_threads=32):
    """Every verdict that threads get until `stop`, which must be that of this process."""
    true = score_many(items)

    def ask(number):
        shift, count = number % len(items), 0
        mine, expected = items[shift:] + items[:shift], true[shift:] + true[:shift]
        while not stop.is_set():
            verdicts = client.score_batch(mine)
            for verdict, one in zip(verdicts, expected, strict=True):
                if "two workers died on it" not in verdict.reason:
                    assert verdict == one
                else:
                    assert (verdict.score, verdict.status) == (None, "fault")
            count += len(verdicts)
        return count

    with ThreadPoolExecutor(num_threads) as threads:
        yield [threads.submit(ask, number) for number in range(num_threads)]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to find the workers")
def test_killed_workers_change_no_verdict(server):
    stop = threading.Event()
    with RewardClient([server.url]) as client:
        for futures in hammer(client, stop, ORDINARY):
            try:
                for _ in range(8):
                    time.sleep(0.15)
                    for worker in descendants(server.process.pid)[1:]:
                        os.kill(worker, signal.SIGKILL)
            finally:
                stop.set()
            assert sum(future.result() for future in futures) >= 32 * len(ORDINARY)
        assert client.score_batch(ORDINARY) == score_many(ORDINARY)
        assert client.stats().unscored == 0
    assert metrics_of(server.url)("pool_restarts_total") >= 8


def test_a_killed_server_of_two_changes_no_verdict(server, environment):
    stop = threading.Event()
    with (
        vl_serve("--workers", 1, env=environment) as victim,
        RewardClient([victim.url, server.url]) as client,
    ):
        for futures in hammer(client, stop, ORDINARY):
            try:
                while client.stats().items < 16 * len(ORDINARY):
                    time.sleep(0.01)
                os.kill(victim.process.pid, signal.SIGKILL)
                killed_at = client.stats().items
                while client.stats().items < killed_at + 32 * len(ORDINARY):
                    time.sleep(0.01)
            finally:
                stop.set()
            assert sum(future.result() for future in futures) > 0
        stats = client.stats()
    assert stats.unscored == 0
    assert stats.servers[0].failed > 0
    assert stats.servers[0].requests > stats.servers[0].failed
    assert stats.servers[1].failed == 0


def test_a_server_for_other_machines_wants_its_token_and_ends_what_it_began(environment, tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    token_file.chmod(0o600)
    options = ("--host", "0.0.0.0", "--token-file", token_file, "--workers", 1)
    with vl_serve(*options, env=environment) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        with httpx.Client(base_url=url, trust_env=False) as http:
            assert http.get("/metrics").status_code == 401
            assert http.get("/health").json() == {"status": "ok"}
        slow = [(make("slow", "x"), "1.5")]
        with (
            RewardClient([url], token=TOKEN, deadline_s=20) as client,
            ThreadPoolExecutor(1) as one,
        ):
            begun = one.submit(client.score_batch, slow)
            http = httpx.Client(
                base_url=url, trust_env=False, headers={"authorization": f"Bearer {TOKEN}"}
            )
            with http:
                while "items_in_flight 1" not in http.get("/metrics").text:
                    time.sleep(0.01)
                for _ in range(2):  # as `timeout` sends it
                    server.process.send_signal(signal.SIGTERM)
                while http.get("/health").status_code != 503:
                    time.sleep(0.01)
                refused = http.post(
                    "/score", json={"items": [{"row": row_of(slow), "response": ""}]}
                )
            assert refused.status_code == 503
            (verdict,) = begun.result()
        assert (verdict.status, verdict.score, verdict.verifier) == ("ok", 1.0, "slow")
        assert server.process.wait(10) == 0
        out, err = server.process.communicate()
        assert out.splitlines()[-1] == "stopped"
        assert err == ""
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health", trust_env=False)


def row_of(items):
    from data_specs import sample_to_row

    return sample_to_row(items[0][0])
