"""Judged metrics: what the judge is asked, how its reply is read, and that it is asked once."""

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image

from verifiers.megabench import JudgedReply, Unscored
from verifiers.megabench.judge import EndpointJudge, ascii_art_gpt4o_judge, gpt_4o_as_judge
from verifiers.megabench.registry import JudgeMessage

CASES = Path(__file__).parent / "cases" / "megabench" / "structured_metric_cases.jsonl"
ROWS = [
    row
    for row in map(json.loads, CASES.read_text().splitlines())
    if row["metric"] == "ascii_art_gpt4o_judge"
]
CONFIG = {
    "judge_model_type": "with image",
    "eval_criteria_prompt": "Q {q} A {a} R {r} C {c}",
    "template_mapping": {
        "q": "example_question",
        "a": "model_output",
        "r": "answers.text",
        "c": "eval_context.rule",
    },
}
REPLY = JudgedReply(
    prediction="mine",
    response="Answer: mine",
    reference="gold",
    references={"text": "gold"},
    query_text="why?",
    images=("a.png",),
    eval_context={"rule": "short"},
    config=CONFIG,
)


def says(text):
    return lambda message: text


def test_the_prompt_is_filled_in_and_images_are_shown():
    asked = []
    judge = lambda message: asked.append(message) or "**Score**: 7"  # noqa: E731
    assert gpt_4o_as_judge(REPLY, judge).score == 0.7
    assert asked == [JudgeMessage("Q why? A mine R gold C short", ("a.png",))]


def test_the_first_whole_mark_counts_and_only_sound_reads_decimals_and_caps():
    assert gpt_4o_as_judge(REPLY, says("**Score** : 8.5")).score == 0.8
    assert gpt_4o_as_judge(REPLY, says("**Score:** 9")).score == 0
    assert gpt_4o_as_judge(REPLY, says("**Score**: 100")).score == 10
    assert gpt_4o_as_judge(REPLY, says("**Score**: 8.5"), mode="sound").score == 0.85
    assert gpt_4o_as_judge(REPLY, says("**Score:** 9"), mode="sound").score == 0.9
    assert gpt_4o_as_judge(REPLY, says("**Score**: 100"), mode="sound").score == 1
    found = gpt_4o_as_judge(REPLY, says("**Score explanation**: fine\n\n**Score**: 6"))
    assert found.info == "Score: 6; Explanation: fine\n\n**Score**: 6"


def test_without_judge_mark_or_a_full_prompt_nothing_is_scored():
    with pytest.raises(Unscored, match="no judge"):
        gpt_4o_as_judge(REPLY, None)
    with pytest.raises(Unscored, match="names no score"):
        gpt_4o_as_judge(REPLY, says("good"), mode="sound")
    lacking = JudgedReply(prediction="", response="", reference="", references={}, config=CONFIG)
    with pytest.raises(Unscored, match="cannot be filled in"):
        gpt_4o_as_judge(lacking, says("**Score**: 1"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: repr(row["response"]))
def test_ascii_art_gets_the_official_scores(row):
    reply = JudgedReply(
        prediction=row["response"], response="", reference=row["reference"], references={}
    )
    assert ascii_art_gpt4o_judge(reply, says(row["judge_reply"])).score == row["score"]


def test_ascii_art_is_shown_as_two_black_and_white_pictures():
    shown = []
    reply = JudgedReply(prediction="##\n##", response="", reference=" /\\ ", references={})
    ascii_art_gpt4o_judge(reply, lambda message: shown.extend(message.images) or "no")
    for url in shown:
        picture = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("L")
        assert picture.size == (224, 224)
        assert picture.getextrema()[0] < 100 < 200 < picture.getextrema()[1]
    assert len(shown) == 2 and shown[0] != shown[1]


@pytest.fixture
def service():
    """A chat completions service that fails twice, then answers with how often it was asked."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers["Authorization"], body))
            failing = len(seen) <= 2
            status = (401 if body["model"] == "locked" else 503) if failing else 200
            answer = {"choices": [{"message": {"content": f"reply {len(seen)}"}}]}
            data = json.dumps({"error": {"message": "busy"}} if failing else answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_reply_is_waited_for_stored_and_asked_for_once(service, tmp_path):
    url, seen = service
    picture = tmp_path / "a.png"
    Image.new("RGBA", (2000, 10), (0, 0, 0, 0)).save(picture)
    judge = EndpointJudge(url=url, model="m", cache=tmp_path / "c", api_key="k", first_wait_s=0.01)
    message = JudgeMessage("hi", (str(picture),))
    assert judge(message) == judge(message) == "reply 3"
    assert len(seen) == 3
    path, key, body = seen[-1]
    assert (path, key) == ("/v1/chat/completions", "Bearer k")
    image, text = body["messages"][0]["content"]
    assert body["temperature"] == 0 and text == {"type": "text", "text": "hi"}
    sent = Image.open(io.BytesIO(base64.b64decode(image["image_url"]["url"].split(",")[1])))
    assert sent.size == (1000, 5) and sent.getpixel((0, 0)) == (255, 255, 255)


def test_a_refused_request_and_a_dead_service_are_unscored(service, tmp_path):
    url, seen = service
    judge = EndpointJudge(url=url, model="locked", cache=tmp_path, first_wait_s=0.01)
    with pytest.raises(Unscored, match="HTTP 401"):
        judge(JudgeMessage("hi"))
    assert len(seen) == 1
    dead = EndpointJudge(url="http://127.0.0.1:9", model="m", cache=tmp_path, first_wait_s=0.01)
    with pytest.raises(Unscored, match="gave no reply"):
        dead(JudgeMessage("hi"))
    with pytest.raises(Unscored, match="cannot be sent"):
        dead(JudgeMessage("hi", (str(tmp_path / "none.png"),)))
