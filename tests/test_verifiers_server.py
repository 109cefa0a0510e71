"""The reward server's endpoints, in this process, over a pool that is told when to answer."""

import asyncio
import json
from concurrent.futures import Future

import httpx
import pytest
from serving import ROW, read_metrics

from verifiers import ScoreContext, Verdict, score_many
from verifiers.pool import PoolStats
from verifiers.server import create_app
from verifiers.server_guard import is_loopback
from verifiers.server_replay import OtherBody, Replays
from verifiers.server_service import RewardService, ServerLimits

TOKEN = "a-token-of-some-length"
BODY = {"items": [{"row": ROW, "response": "\\boxed{7}"}, {"row": ROW, "response": "\\boxed{8}"}]}


class HeldPool:
    """Judges at once, or when it is released."""

    def __init__(self, hold=False):
        self.hold = hold
        self.jobs = []
        self.is_closed = False

    def submit(self, items, context):
        future = Future()
        self.jobs.append((future, items, context))
        if not self.hold:
            self.release()
        return future

    def release(self):
        for future, items, context in self.jobs:
            if not future.done():
                future.set_result(score_many(items, context))

    def stats(self):
        return PoolStats(num_workers=3, busy=1, queued=5, scored=9, timeouts=2, restarts=4)


def served(test, *, token=None, limits=None, pool=None, base="http://127.0.0.1:8000"):
    """Run `test(http, service)` against an application."""

    async def run():
        service = RewardService(pool or HeldPool(), limits)
        transport = httpx.ASGITransport(
            create_app(service, token=token), raise_app_exceptions=False
        )
        async with httpx.AsyncClient(transport=transport, base_url=base) as http:
            return await test(http, service)

    return asyncio.run(run())


async def metrics_of(http, **headers):
    answer = await http.get("/metrics", headers=headers)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = read_metrics(answer.text)
    return lambda name, **labels: samples.get((f"vl_reward_{name}", frozenset(labels.items())), 0)


def test_a_batch_is_judged_in_order_with_the_servers_name():
    async def test(http, service):
        answer = await http.post("/score", json=BODY)
        assert answer.status_code == 200
        content = answer.json()
        assert (content["server"], content["version"]) == ("vl-triune", service.version)
        verdicts = [Verdict.from_json(entry) for entry in content["verdicts"]]
        assert [verdict.score for verdict in verdicts] == [1.0, 0.0]
        return service.pool.jobs

    ((_, items, context),) = served(test)
    assert [response for _, response in items] == ["\\boxed{7}", "\\boxed{8}"]
    assert context == ScoreContext()


def test_only_who_carries_the_token_is_answered():
    async def test(http, service):
        for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}):
            for path in ("/score", "/metrics", "/version", "/openapi.json", "/nowhere"):
                answer = await http.request("POST", path, json=BODY, headers=given)
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"] == "Bearer"
        assert "no token" in (await http.get("/metrics")).json()["error"]
        assert (await http.get("/health")).json() == {"status": "ok"}
        good = {"authorization": f"Bearer {TOKEN}"}
        assert (await http.post("/score", json=BODY, headers=good)).status_code == 200
        metric = await metrics_of(http, **good)
        assert metric("requests_total", path="/score", code="401") == 3
        assert metric("requests_total", path="other", code="401") == 3
        assert len(service.pool.jobs) == 1

    served(test, token=TOKEN, base="http://rewards.example")


def test_without_a_token_no_page_of_another_name_is_answered():
    async def test(http, _):
        answer = await http.post("/score", json=BODY)
        assert answer.status_code == 403
        assert "--token-file" in answer.json()["error"]
        assert (await http.get("/health")).status_code == 200

    served(test, base="http://evil.example:8000")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("localhost", True),
        ("LocalHost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_only_loopback_is_local(host, local):
    assert is_loopback(host) is local


def test_no_page_of_another_origin_may_read_answers():
    async def test(http, _):
        origin = {"origin": "http://evil.example", "access-control-request-method": "POST"}
        answers = [
            await http.options("/score", headers=origin),
            await http.post("/score", json=BODY, headers=origin),
        ]
        assert answers[0].status_code == 405
        for answer in answers:
            assert not any(name.startswith("access-control") for name in answer.headers)
        plain = await http.post("/score", content=json.dumps(BODY))
        assert plain.status_code == 415
        assert "allowed: application/json" in plain.json()["error"]

    served(test)


def test_a_body_over_the_limit_is_refused_before_it_is_read():
    async def test(http, service):
        sent = []

        async def endless():
            while len(sent) < 1000:
                sent.append(1)
                yield b"x" * 1000

        said = {"content-type": "application/json"}
        answer = await http.post("/score", content=endless(), headers=said)
        assert answer.status_code == 413
        assert "allowed: a body of up to 5000 bytes" in answer.json()["error"]
        assert len(sent) <= 7
        sent.clear()
        declared = {**said, "content-length": "1000000"}
        answer = await http.post("/score", content=endless(), headers=declared)
        assert answer.status_code == 413
        assert answer.headers["connection"] == "close"
        assert sent == []
        assert service.pool.jobs == []

    served(test, limits=ServerLimits(body_bytes_max=5000))


def test_a_body_that_never_ends_is_given_up():
    async def test(http, _):
        async def stuck():
            yield b"{"
            await asyncio.sleep(60)

        said = {"content-type": "application/json"}
        answer = await http.post("/score", content=stuck(), headers=said)
        assert answer.status_code == 408

    served(test, limits=ServerLimits(body_s=0.05))


def test_malformed_items_are_named_and_nothing_is_judged():
    async def test(http, service):
        items = [*BODY["items"], {"row": ROW, "response": None}, {"row": 3, "response": ""}]
        answer = await http.post("/score", json={"items": items})
        assert answer.status_code == 422
        content = answer.json()
        assert content["num_problems"] == 1
        assert content["problems"] == [
            {"item": 2, "field": "response", "value": "None", "allowed": "a valid string"}
        ]
        answer = await http.post("/score", json={"items": items[:2] + items[3:]})
        assert answer.json()["problems"][0]["allowed"] == "the index of one of 0 rows, from 0"
        answer = await http.post("/score", json={"items": items * 2})
        assert answer.status_code == 413
        assert service.pool.jobs == []

    served(test, limits=ServerLimits(items_max=5))


def test_the_same_request_again_gets_the_same_answer_and_counts_once():
    async def test(http, service):
        named = {**BODY, "request_id": "one"}
        first = await http.post("/score", json=named)
        again = await http.post("/score", json=named)
        assert again.content == first.content
        assert first.json()["request_id"] == "one"
        metric = await metrics_of(http)
        assert metric("items_total", verifier="mathverify", status="ok") == 2
        assert metric("verdict_seconds_count", verifier="mathverify") == 2
        assert metric("request_seconds_count") == 1
        assert metric("requests_total", path="/score", code="200") == 2
        assert metric("replays_total") == 1
        assert len(service.pool.jobs) == 1
        other = await http.post("/score", json={**named, "progress": 0.5})
        assert other.status_code == 409
        assert "another body" in other.json()["error"]
        await http.post("/score", json=BODY)
        await http.post("/score", json=BODY)
        assert len(service.pool.jobs) == 3

    served(test)


def test_a_repeated_request_waits_for_the_first_and_outlives_who_asked():
    pool = HeldPool(hold=True)

    async def test(http, service):
        named = {**BODY, "request_id": "one"}
        first = asyncio.create_task(http.post("/score", json=named))
        while not pool.jobs:
            await asyncio.sleep(0.001)
        first.cancel()
        again = asyncio.create_task(http.post("/score", json=named))
        await asyncio.sleep(0.02)
        metric = await metrics_of(http)
        assert metric("items_in_flight") == 2
        pool.release()
        assert (await again).status_code == 200
        assert len(pool.jobs) == 1
        assert service.items_in_flight == 0

    served(test, pool=pool)


def test_a_pool_that_fails_is_an_error_and_is_asked_anew():
    class BrokenOnce(HeldPool):
        def submit(self, items, context):
            if not self.jobs:
                self.jobs.append((Future(), items, context))
                self.jobs[0][0].set_exception(RuntimeError("pool is closed"))
                return self.jobs[0][0]
            return super().submit(items, context)

    async def test(http, service):
        named = {**BODY, "request_id": "one"}
        answer = await http.post("/score", json=named)
        assert (answer.status_code, answer.json()["error"]) == (
            503,
            "nobody judges here any more: pool is closed",
        )
        assert (await http.post("/score", json=named)).status_code == 200
        assert service.items_in_flight == 0

    served(test, pool=BrokenOnce())


def test_a_full_queue_says_so_and_a_big_batch_still_gets_its_turn():
    pool = HeldPool(hold=True)

    async def test(http, service):
        waiting = asyncio.create_task(http.post("/score", json=BODY))
        while not pool.jobs:
            await asyncio.sleep(0.001)
        answer = await http.post("/score", json=BODY)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert "2 items wait and 2 more were sent; allowed: 3" in answer.json()["error"]
        pool.release()
        assert (await waiting).status_code == 200
        pool.hold = False
        big = {"items": BODY["items"] * 10}
        assert (await http.post("/score", json=big)).status_code == 200

    served(test, pool=pool, limits=ServerLimits(queue_items_max=3))


def test_a_stopping_server_takes_nothing_new_and_answers_what_it_has():
    pool = HeldPool(hold=True)

    async def test(http, service):
        waiting = asyncio.create_task(http.post("/score", json={**BODY, "request_id": "one"}))
        while not pool.jobs:
            await asyncio.sleep(0.001)
        service.draining = True
        assert (await http.get("/health")).status_code == 503
        assert (await http.post("/score", json=BODY)).status_code == 503
        pool.release()
        assert (await waiting).status_code == 200
        again = await http.post("/score", json={**BODY, "request_id": "one"})
        assert again.content == (await waiting).content

    served(test, pool=pool)


def test_a_verdict_that_json_cannot_say_is_a_fault_and_not_a_number():
    class NanPool(HeldPool):
        def submit(self, items, context):
            future = Future()
            future.set_result([Verdict.scored(1.0, parts={"iou": float("nan")})] * len(items))
            return future

    async def test(http, _):
        for verdict in (await http.post("/score", json=BODY)).json()["verdicts"]:
            assert (verdict["score"], verdict["reward"], verdict["status"]) == (None, None, "fault")
        metric = await metrics_of(http)
        assert metric("unscored_total", status="fault") == 2

    served(test, pool=NanPool())


def test_every_verifier_and_status_has_its_count_and_strangers_share_one():
    async def test(http, _):
        rows = [
            (ROW, "\\boxed{7}"),
            (ROW, "none"),
            ({**ROW, "reward_model": {"verifier": "text", "ground_truth": "x"}}, "\\boxed{x}"),
            ({**ROW, "reward_model": {"verifier": 'no\n"body', "ground_truth": "x"}}, "x"),
            ({**ROW, "reward_model": {"verifier": "nobody", "ground_truth": "x"}}, "x"),
        ]
        items = [{"row": row, "response": response} for row, response in rows]
        assert (await http.post("/score", json={"items": items})).status_code == 200
        metric = await metrics_of(http)
        assert metric("items_total", verifier="mathverify", status="ok") == 1
        assert metric("items_total", verifier="mathverify", status="no_answer") == 1
        assert metric("items_total", verifier="text", status="ok") == 1
        assert metric("items_total", verifier="other", status="bad_reference") == 2
        assert metric("unscored_total", status="bad_reference") == 2
        assert metric("unscored_total", status="timeout") == 0
        assert metric("verdict_seconds_bucket", verifier="mathverify", le="+Inf") == 2

    served(test)


def test_the_document_has_the_schemas_of_requests_and_answers():
    async def test(http, _):
        return (await http.get("/openapi.json")).json()

    document = served(test)
    assert set(document["paths"]) == {"/score", "/health", "/metrics", "/version"}
    score = document["paths"]["/score"]["post"]
    schemas = document["components"]["schemas"]
    body = score["requestBody"]["content"]["application/json"]["schema"]
    answer = score["responses"]["200"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ScoreRequest"}
    assert answer == {"$ref": "#/components/schemas/ScoreAnswer"}
    assert set(schemas["ScoreRequest"]["properties"]) == {
        "items",
        "rows",
        "progress",
        "iou_rule",
        "request_id",
    }
    assert schemas["ScoreRequest"]["required"] == ["items"]
    assert set(schemas["Item"]["required"]) == {"row", "response"}
    assert set(schemas["VerdictAnswer"]["properties"]) == set(Verdict.scored(1.0).to_json())
    for code in ("400", "401", "409", "413", "415", "422", "429", "503"):
        refusal = score["responses"][code]["content"]["application/json"]["schema"]
        assert refusal == {"$ref": "#/components/schemas/Refusal"}
    text = json.dumps(document)
    for name in (part.split('"')[0] for part in text.split("#/components/schemas/")[1:]):
        assert name in schemas


def test_the_pools_own_counts_are_among_the_metrics():
    async def test(http, _):
        metric = await metrics_of(http)
        assert metric("queue_items") == 5
        assert (metric("pool_workers"), metric("pool_workers_busy")) == (3, 1)
        assert (metric("pool_restarts_total"), metric("pool_timeouts_total")) == (4, 2)

    served(test)


def test_a_server_whose_workers_have_ended_is_not_healthy():
    async def test(http, service):
        assert (await http.get("/health")).status_code == 200
        service.pool.is_closed = True
        answer = await http.get("/health")
        assert (answer.status_code, "ended" in answer.json()["status"]) == (503, True)

    served(test)


def test_versions_and_limits_are_told():
    async def test(http, service):
        content = (await http.get("/version")).json()
        assert content["verifiers"]["mathverify"]
        assert (content["items_max"], content["body_bytes_max"]) == (4096, 64 * 2**20)

    served(test)


def test_limits_are_checked():
    with pytest.raises(ValueError, match="items_max is 0; allowed: above 0"):
        ServerLimits(items_max=0)


def test_stored_answers_are_bounded_by_bytes_and_age():
    async def answer(size):
        return b"x" * size

    async def run():
        replays = Replays(bytes_max=10_000, age_max_s=0.05)
        for number in range(20):
            await replays.start(str(number), b"digest", lambda: answer(1500))
        kept = [number for number in range(20) if replays.find(str(number), b"digest")]
        assert kept == [17, 18, 19]  # 2,524 bytes each
        with pytest.raises(OtherBody):
            replays.find("19", b"other")
        await asyncio.sleep(0.06)
        assert replays.find("19", b"digest") is None
        assert len(replays) == 0

    asyncio.run(run())


def test_an_answer_on_its_way_is_never_forgotten():
    async def run():
        replays = Replays(bytes_max=10, age_max_s=0.001)
        end = asyncio.Event()

        async def slow():
            await end.wait()
            return b"answer"

        task = replays.start("slow", b"digest", slow)
        await asyncio.sleep(0.01)
        assert replays.find("slow", b"digest") is task
        end.set()
        assert await task == b"answer"
        assert replays.find("slow", b"digest") is None

    asyncio.run(run())
