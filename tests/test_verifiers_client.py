"""The reward client against servers that fail in every way: one verdict per item, or none."""

import asyncio
import json
import math
import os
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import DROP, FakeServer, Reply, judged
from test_verifiers_cases import BOX, make

from verifiers import FixedIou, ScoreContext, score_many
from verifiers.client import RefusedByServer, RewardClient, RewardServiceError
from verifiers.client_servers import RewardServers

CONTEXT = ScoreContext(progress=0.5, iou_rule=FixedIou(0.5))
NUMBERS = [(make("number", f"\\boxed{{{n}}}"), f"\\boxed{{{n - n % 2}}}") for n in range(60)]
MIXED = [
    *NUMBERS[:20],
    (make("detection", BOX), BOX),
    (make("detection", BOX), BOX.replace("90, 90", "90, 85")),
    (make("mathverify", "\\boxed{\\frac{1}{2}}"), "\\boxed{\\frac{2}{4}}"),
    (make("text", "\\boxed{EXIT}"), "\\boxed{EXIT\u2028}"),
    (make("nobody", "x"), "y"),
    (make("number", "\\boxed{7}", tolerance="none"), "\\boxed{7}"),
    (make("number", "\\boxed{7}"), ""),
]


@pytest.fixture(scope="module")
def honest():
    with FakeServer() as server:
        yield server


async def hang(request):
    await asyncio.sleep(60)


async def slowly(request):
    await asyncio.sleep(0.05)
    return judged(request)


def lying(change):
    def behave(request):
        answer = json.loads(judged(request).body)
        change(answer)
        return Reply(200, json.dumps(answer).encode())

    return behave


def dead_url():
    """An address where nothing listens."""
    with FakeServer() as server:
        return server.url


def test_verdicts_are_those_of_this_process_and_every_server_works():
    with FakeServer(slowly) as one, FakeServer(slowly) as two:
        with RewardClient([one.url, two.url]) as client:
            assert client.score_batch(MIXED, CONTEXT) == score_many(MIXED, CONTEXT)
            assert client.score_batch([], CONTEXT) == []
            stats = client.stats()
        assert one.requests and two.requests
        assert (stats.items, stats.unscored, stats.retries) == (len(MIXED), 0, 0)
        assert [server.items_in_flight for server in stats.servers] == [0, 0]
        for request in one.requests + two.requests:
            assert request["progress"] == 0.5
            assert request["iou_rule"] == {"type": "fixed", "threshold": 0.5}


def test_a_batch_goes_out_in_requests_and_a_group_carries_its_row_once(honest):
    honest.requests.clear()
    sample = make("number", "\\boxed{7}")
    items = [(sample, f"\\boxed{{{n % 9}}}") for n in range(25)]
    with RewardClient([honest.url], max_items_per_request=10) as client:
        assert client.score_batch(items) == score_many(items)
    assert sorted(len(request["items"]) for request in honest.requests) == [5, 10, 10]
    assert [len(request["rows"]) for request in honest.requests] == [1, 1, 1]
    assert len({request["request_id"] for request in honest.requests}) == 3


def test_long_responses_go_out_in_smaller_requests(honest):
    honest.requests.clear()
    items = [(NUMBERS[0][0], "x" * 1_500_000 + "\\boxed{0}")] * 4
    with RewardClient([honest.url]) as client:
        assert client.score_batch(items) == score_many(items)
    assert sorted(len(request["items"]) for request in honest.requests) == [2, 2]


FAILURES = {
    "drops": lambda request: DROP,
    "crashes": lambda request: Reply(500, b"Internal Server Error"),
    "is full": lambda request: Reply(429, b'{"error": "full"}'),
    "stops": lambda request: Reply(503, b'{"error": "stopping"}'),
    "is no reward server": lambda request: Reply(200, b"<html>hello</html>"),
    "answers one item too few": lying(lambda answer: answer["verdicts"].pop()),
    "answers another request": lying(lambda answer: answer.update(request_id="other")),
    "says more than 1": lying(lambda answer: answer["verdicts"][0].update(score=1.5)),
    "says NaN": lying(lambda answer: answer["verdicts"][0].update(reward=math.nan)),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_one_server_fails_at_another_does(failure, honest):
    broken = FakeServer(FAILURES[failure])
    with broken, RewardClient([broken.url, honest.url]) as client:
        verdicts = client.score_batch(NUMBERS, CONTEXT)
        stats = client.stats()
    assert verdicts == score_many(NUMBERS, CONTEXT)
    assert broken.requests
    assert stats.retries == stats.servers[0].failed == len(broken.requests)
    assert stats.servers[0].last_error
    assert stats.servers[1].failed == 0


def test_a_server_that_fails_rests():
    with FakeServer(FAILURES["drops"]) as broken, FakeServer() as honest:
        with RewardClient([broken.url, honest.url]) as client:
            for item in NUMBERS:
                assert client.score_batch([item]) == score_many([item])
        assert len(broken.requests) <= 5
        assert len(honest.requests) == 60


def test_what_failed_goes_to_another_server_even_if_the_first_does_well_otherwise(honest):
    def behave(request):
        poisoned = any(item["response"] == "poison" for item in request["items"])
        return Reply(500, b"") if poisoned else judged(request)

    items = [(NUMBERS[0][0], "poison" if n % 4 == 0 else "\\boxed{0}") for n in range(200)]
    with FakeServer(behave) as picky:
        with RewardClient([picky.url, honest.url], max_items_per_request=1) as client:
            assert client.score_batch(items) == score_many(items)
        poisoned = [one["request_id"] for one in picky.requests if "poison" in str(one["items"])]
    assert len(poisoned) == len(set(poisoned)) > 0


def test_a_server_that_comes_back_is_used_again():
    failing = [True, True]
    with (
        FakeServer(
            lambda request: DROP if failing and failing.pop() else judged(request)
        ) as server,
        RewardClient([server.url], deadline_s=20) as client,
    ):
        assert client.score_batch(NUMBERS[:3]) == score_many(NUMBERS[:3])
        assert client.stats().retries == 2
        ids = {request["request_id"] for request in server.requests}
    assert len(server.requests) == 3
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (422, b'{"error": "items[3].response is None"}', "HTTP 422: items\\[3\\].response is None"),
        (401, b'{"error": "no token"}', "HTTP 401: no token"),
        (404, b"<html>", "HTTP 404: b'<html>'"),
        (302, b"[]", "HTTP 302"),
    ],
)
def test_a_request_that_is_refused_is_raised_and_not_sent_again(status, body, said, honest):
    with FakeServer(lambda request: Reply(status, body)) as server:
        with RewardClient([server.url]) as client, pytest.raises(RefusedByServer, match=said):
            client.score_batch(NUMBERS[:5])
        assert len(server.requests) == 1


def test_if_no_server_can_be_reached_every_one_is_named():
    urls = [dead_url(), dead_url()]
    with (
        FakeServer(FAILURES["is full"]) as full,
        RewardClient([*urls, full.url], deadline_s=0.6) as client,
        pytest.raises(RewardServiceError) as caught,
    ):
        client.score_batch(NUMBERS)
    said = str(caught.value)
    assert said.startswith("no server scored any of 60 items within 0.6 s. ")
    for url in urls:
        assert f"{url}: no connection" in said
    assert f"{full.url}: HTTP 429: full" in said
    assert not isinstance(caught.value, RefusedByServer)


def test_a_server_that_hangs_is_given_up_for_another(honest):
    settings = {"request_timeout_s": 0.2, "hedge_after_s": math.inf}
    with FakeServer(hang) as hung, RewardClient([hung.url, honest.url], **settings) as client:
        assert client.score_batch(NUMBERS) == score_many(NUMBERS)
        assert client.stats().servers[0].last_error == "no answer within 0.2 s"
        assert client.stats().hedges == 0


def test_items_without_an_answer_are_unscored_and_the_others_are_scored():
    async def behave(request):
        if any(item["response"] == "poison" for item in request["items"]):
            await asyncio.sleep(60)
        return judged(request)

    items = [*NUMBERS[:30], (NUMBERS[0][0], "poison"), *NUMBERS[30:]]
    settings = {"deadline_s": 0.5, "max_items_per_request": 10}
    with FakeServer(behave) as server, RewardClient([server.url], **settings) as client:
        verdicts = client.score_batch(items)
        stats = client.stats()
    true = score_many(items)
    assert verdicts[:30] == true[:30]
    assert verdicts[40:] == true[40:]
    for verdict in verdicts[30:40]:
        assert (verdict.score, verdict.reward, verdict.status) == (None, None, "timeout")
        assert verdict.reason == f"{server.url}: no answer within 0.5 s"
        assert verdict.verifier == "number"
    assert stats.unscored == 10


def test_a_straggler_is_asked_of_a_second_server_and_counts_once(honest):
    honest.requests.clear()
    with FakeServer(hang) as slow:
        with RewardClient([slow.url, honest.url], hedge_after_s=0.1, deadline_s=20) as client:
            verdicts = client.score_batch(NUMBERS)
            stats = client.stats()
        slow_ids = {request["request_id"] for request in slow.requests}
    assert verdicts == score_many(NUMBERS)
    assert stats.hedges == len(slow_ids) > 0
    assert slow_ids <= {request["request_id"] for request in honest.requests}
    assert stats.retries == 0
    assert [server.items_in_flight for server in stats.servers] == [0, 0]


def test_the_wait_before_a_second_server_follows_the_median():
    servers = RewardServers(["http://a"], None)
    assert servers.hedge_after_s() == math.inf
    for seconds in [0.5] * 9 + [60.0]:
        servers.took(seconds)
    assert servers.hedge_after_s() == 3.0
    for _ in range(20):
        servers.took(2.0)
    assert servers.hedge_after_s() == 8.0
    assert RewardServers(["http://a"], 0.5).hedge_after_s() == 0.5


def test_the_faster_server_does_more():
    async def slow(request):
        await asyncio.sleep(0.3)
        return judged(request)

    async def fast(request):
        await asyncio.sleep(0.01)
        return judged(request)

    with FakeServer(slow) as one, FakeServer(fast) as two:
        with RewardClient([one.url, two.url], max_items_per_request=1) as client:
            items = NUMBERS * 4
            assert client.score_batch(items) == score_many(items)
        assert len(two.requests) > 1.5 * len(one.requests) > 0


def test_thirty_two_threads_get_their_own_verdicts(honest):
    with RewardClient([honest.url]) as client:

        def ask(number):
            items = NUMBERS[number : number + 5]
            return [client.score_batch(items) == score_many(items) for _ in range(5)]

        with ThreadPoolExecutor(32) as threads:
            assert all(all(same) for same in threads.map(ask, range(32)))
        assert client.stats().items == 32 * 5 * 5


def test_event_loops_of_several_threads_share_a_client(honest):
    with RewardClient([honest.url]) as client:

        async def ask():
            batches = [NUMBERS[start : start + 7] for start in range(0, 21, 7)]
            answers = await asyncio.gather(*map(client.score_batch_async, batches))
            return [verdict for answer in answers for verdict in answer]

        with ThreadPoolExecutor(3) as threads:
            for verdicts in threads.map(lambda _: asyncio.run(ask()), range(3)):
                assert verdicts == score_many(NUMBERS[:21])


def test_rows_that_cannot_travel_are_bad_references_without_a_request(honest):
    honest.requests.clear()
    bad = make("text", "x", setting=object())
    with RewardClient([honest.url]) as client:
        (verdict,) = client.score_batch([(bad, "x")])
        assert honest.requests == []
        mixed = client.score_batch([NUMBERS[0], (bad, "x"), NUMBERS[1]])
    assert (verdict.score, verdict.status, verdict.verifier) == (None, "bad_reference", "text")
    assert "not to be said in JSON" in verdict.reason
    assert [one.status for one in mixed] == ["ok", "bad_reference", "ok"]


def test_the_token_is_sent_and_proxies_are_not_asked(honest, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", dead_url())
    monkeypatch.setenv("ALL_PROXY", dead_url())
    with RewardClient([honest.url + "/"], token="a-token") as client:
        client.score_batch(NUMBERS[:1])
    assert "authorization: bearer a-token" in honest.headers[-1].lower()
    assert honest.headers[-1].startswith("POST /score HTTP/1.1")


def test_a_closed_client_says_so():
    with FakeServer(hang) as server:
        client = RewardClient([server.url])
        raised = []

        def ask():
            try:
                client.score_batch(NUMBERS[:1])
            except RewardServiceError as error:
                raised.append(str(error))

        thread = threading.Thread(target=ask)
        thread.start()
        while not server.requests:
            time.sleep(0.005)
        client.close()
        thread.join(5)
        client.close()
    assert raised == ["the client was closed before the answer came"]
    with pytest.raises(RewardServiceError, match="closed"):
        client.score_batch(NUMBERS[:1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_makes_its_own_connections(honest):
    with RewardClient([honest.url]) as client:
        client.score_batch(NUMBERS[:2])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            code = 1
            try:
                same = client.score_batch(NUMBERS[:4]) == score_many(NUMBERS[:4])
                code = 0 if same and client.stats().requests == 1 else 2
            finally:
                os._exit(code)
        assert client.score_batch(NUMBERS[:3]) == score_many(NUMBERS[:3])
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.score_batch(NUMBERS[:3]) == score_many(NUMBERS[:3])


@pytest.mark.parametrize(
    "urls",
    [
        [],
        "http://a",
        ["a:1"],
        ["ftp://a"],
        ["http://a"] * 2,
        ["http://"],
        ["http://a:x"],
        ["http://a?b"],
        ["http://a b"],
    ],
)
def test_addresses_are_checked(urls):
    with pytest.raises(ValueError, match="allowed: "):
        RewardClient(urls)


def test_a_token_cannot_smuggle_a_header():
    with pytest.raises(ValueError, match="not visible ASCII"):
        RewardClient(["http://a"], token="x\r\nHost: b")


@pytest.mark.parametrize("setting", ["deadline_s", "hedge_after_s", "max_items_per_request"])
def test_settings_are_checked(setting):
    with pytest.raises(ValueError, match=f"{setting} is 0; allowed: above 0"):
        RewardClient(["http://a"], **{setting: 0})


@pytest.mark.parametrize("package", ["httptools", "orjson"])
def test_without_its_packages_the_client_says_what_to_install(package):
    code = f"import sys; sys.modules[{package!r}] = None\nimport verifiers\nimport verifiers.client"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        f"a reward client needs {package}; install it: pip install 'vl-triune[serve]'"
        in (done.stderr.splitlines()[-1])
    )
