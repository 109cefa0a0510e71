"""Rollouts from a server that speaks vLLM's dialect: weights pushed first, errors said plainly."""

from __future__ import annotations

import base64
import io
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from PIL import Image
from tiny_vl import corpus_of, judge_by_length, pose, stream_of, tiny_policy
from transformers import AutoModelForImageTextToText

from vl.endpoint import EndpointConfig, EndpointError, EndpointSampler
from vl.optim import AdamWConfig
from vl.parallel import Shards
from vl.policy import Question
from vl.rl import RlConfig, RlStage
from vl.rollout import SamplingConfig, sample_rollouts
from vl.stops import StopConfig

SAMPLING = SamplingConfig(num_rollouts=3, max_new_tokens=5)


class Server:
    """Answers as vLLM does, with a policy loaded from the folder it is told to load from."""

    def __init__(self, weights_dir, *, without=()):
        self.weights_dir, self.without = weights_dir, without
        self.calls, self.policy = [], None

    def post(self, path, body):
        self.calls.append(path)
        if path in self.without:
            return 404, {"detail": "Not Found"}
        if path == "/collective_rpc":
            assert body == {"method": "reload_weights"}
            self.policy = tiny_policy()
            loaded = AutoModelForImageTextToText.from_pretrained(self.weights_dir)
            self.policy.model.load_state_dict(loaded.state_dict())
            return 200, {"results": [None]}
        if path == "/reset_prefix_cache":
            return 200, None
        return 200, self.answer(body)

    def answer(self, body):
        assert body["logprobs"] and body["return_token_ids"] and body["top_p"] == 1.0
        assert all(value == -100.0 for value in body["logit_bias"].values())
        parts = body["messages"][0]["content"]
        assert parts[0]["image_url"]["url"].startswith("data:image/png;base64,")
        data = base64.b64decode(parts[0]["image_url"]["url"].partition(",")[2])
        policy = self.policy
        features = policy.features([policy.encode([Image.open(io.BytesIO(data)).convert("RGB")])])
        config = SamplingConfig(num_rollouts=body["n"], max_new_tokens=body["max_tokens"])
        (group,) = sample_rollouts(
            policy,
            features,
            [Question(owner=0, text=parts[1]["text"])],
            config,
            torch.Generator().manual_seed(body["seed"]),
        )
        return {
            "choices": [
                {
                    "message": {"content": rollout.text},
                    "token_ids": list(rollout.token_ids),
                    "finish_reason": "length" if rollout.truncated else "stop",
                    "logprobs": {"content": [{"logprob": p} for p in rollout.logprobs]},
                }
                for rollout in group
            ]
        }


@contextmanager
def served(server):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, reply = server.post(self.path, body)
            content = b"" if reply is None else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http_server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http_server.server_port}/v1"
    finally:
        http_server.shutdown()
        thread.join()
        http_server.server_close()


def stage_with(url, folder, **options):
    policy, corpus = tiny_policy(), corpus_of(1, 2)
    config = RlConfig(
        num_steps=3,
        pictures_per_step=2,
        sampling=SAMPLING,
        optimizer=AdamWConfig(lr=3e-3),
        endpoint=EndpointConfig(url=url, model="policy", weights_dir=str(folder), concurrency=2),
        **options,
    )
    return RlStage(policy, corpus, stream_of(corpus), pose, config, Shards(1), seed=1)


def test_every_step_trains_on_rollouts_of_its_own_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("vl.groups.score_with", judge_by_length)
    server = Server(tmp_path / "weights")
    with served(server) as url:
        stage = stage_with(url, tmp_path / "weights")
        before = stage.policy.model.language_model.lm_head.weight.clone()
        for step in range(2):
            values = stage.run_step(step)
            # the server's weights are those of this step: its log-probs are the update's
            assert values["rollout_match/max_difference"] < 1e-5
            assert stage.alarms == []
        assert not torch.equal(stage.policy.model.language_model.lm_head.weight, before)
    asked = "/v1/chat/completions"
    assert server.calls == ["/collective_rpc", "/reset_prefix_cache", asked, asked, asked] * 2
    assert [len(group.rollouts) for group in stage.last_groups] == [3, 3, 3]


@pytest.mark.parametrize("route", ["/collective_rpc", "/reset_prefix_cache"])
def test_a_server_that_cannot_load_weights_stops_the_run(tmp_path, route):
    with served(Server(tmp_path / "weights", without=(route,))) as url:
        stage = stage_with(url, tmp_path / "weights")
        with pytest.raises(EndpointError, match=r"HTTP 404.*VLLM_SERVER_DEV_MODE=1"):
            stage.run_step(0)


def test_nobody_there_is_said_with_the_address(tmp_path):
    stage = stage_with("http://127.0.0.1:9/v1", tmp_path / "weights")
    with pytest.raises(EndpointError, match=r"http://127.0.0.1:9/collective_rpc"):
        stage.run_step(0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda reply: reply["choices"].pop(), "found 2 answers to a prompt, asked for 3"),
        (lambda reply: reply["choices"][0].pop("token_ids"), "found 0 token_ids"),
        (lambda reply: reply["choices"][0]["logprobs"]["content"].pop(), "both are needed"),
        (lambda reply: reply["choices"][0].update(finish_reason="abort"), "'abort'"),
    ],
)
def test_half_an_answer_is_an_error(tmp_path, monkeypatch, spoil, message):
    original = Server.answer

    def answer(self, body):
        reply = original(self, body)
        spoil(reply)
        return reply

    monkeypatch.setattr(Server, "answer", answer)
    with (
        served(Server(tmp_path / "weights")) as url,
        pytest.raises(EndpointError, match=message),
    ):
        stage_with(url, tmp_path / "weights").run_step(0)


def test_settings_that_a_server_cannot_follow_are_refused(tmp_path):
    config = EndpointConfig(url="http://a:1/v1", model="m", weights_dir=str(tmp_path))
    stops = StopConfig(complete_answer="tag")
    with pytest.raises(ValueError, match="complete_answer: found 'tag'"):
        EndpointSampler(config, SamplingConfig(stops=stops))
    with pytest.raises(ValueError, match="found url 'a:1'"):
        EndpointConfig(url="a:1", model="m", weights_dir="w")
