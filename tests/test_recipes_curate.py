"""`vl data curate` as a person types it, with an endpoint that is a small server of our own."""

import base64
import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_data_specs_parquet import png
from test_tasks_curate import ids, mixed, numbered, written
from test_tasks_curate_rules import box_row

from data_specs import ImageRef, Message, count_rows, read_samples
from recipes.cli import main
from recipes.curate_endpoint import EndpointPolicy, chat_messages
from tasks.curate_difficulty import Ask
from tasks.curate_rules import RULES


class Fake:
    """Answers chat requests by a function (body, number of the request) -> status and content."""

    def __init__(self, reply):
        self.reply, self.bodies, self.headers = reply, [], []
        self.lock = threading.Lock()

    def handle(self, body, headers):
        with self.lock:
            self.bodies.append(body)
            self.headers.append(headers)
            number = len(self.bodies)
        return self.reply(body, number)


@contextmanager
def serving(reply):
    fake = Fake(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/v1/chat/completions"
            content = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = fake.handle(json.loads(content), dict(self.headers))
            sent = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        fake.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def choices(*texts):
    return {"choices": [{"message": {"content": text}} for text in texts]}


def half_right(body, number):
    right = [r"\boxed{7}" if index % 2 else r"\boxed{8}" for index in range(body["n"])]
    return 200, choices(*right)


def policy(url, **changes):
    return EndpointPolicy(**({"url": url, "model": "m", "wait_s": 0.0, "concurrency": 1} | changes))


def curate(*words):
    return main(["data", "curate", *map(str, words)])


def endpoint(fake, *words):
    return ["--endpoint", fake.url, "--model", "m", "--concurrency", 1, "--retries", 0, *words]


def test_rows_are_asked_with_their_image_and_kept_by_band(tmp_path, capsys):
    path = written(tmp_path / "train_a.parquet", numbered(3))
    key = tmp_path / "key"
    key.write_text("secret\n")
    with serving(half_right) as fake:
        words = endpoint(fake, "--api-key-file", key, "--max-tokens", 99)
        assert curate(path, "--out", tmp_path / "out", *words) == 0
    said = capsys.readouterr().out
    assert "made: rows with right answers: none 0, some 3, all 0" in said
    assert "  0.5-0.6       3 " in said
    assert [item.extra["difficulty"] for item in read_samples(tmp_path / "out")] == [0.5] * 3
    body = fake.bodies[0]
    assert (body["n"], body["temperature"], body["max_tokens"], body["model"]) == (8, 1.0, 99, "m")
    (message,) = body["messages"]
    image, text = message["content"]
    url = image["image_url"]["url"]
    assert url.startswith("data:image/png;base64,")
    assert base64.b64decode(url.partition(",")[2]) == png(0)
    assert text == {"type": "text", "text": r"What is sum 0? answer in \boxed{}"}
    assert fake.headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in (tmp_path / "out" / "curation.json").read_text()


def test_a_curation_goes_on_where_a_dead_endpoint_stopped_it(tmp_path, capsys):
    path = written(tmp_path / "train_a.parquet", numbered(4))
    out = tmp_path / "out"

    def dying(body, number):
        return half_right(body, number) if number <= 2 else (500, b"out of memory")

    with serving(dying) as fake:
        words = endpoint(fake)
        assert curate(path, "--out", out, *words) == 2
        said = capsys.readouterr().err
        assert "HTTP 500 'out of memory'" in said and "give the same command again" in said
        assert len((out / "difficulty.jsonl").read_text().splitlines()) == 2
        assert not list(out.glob("*.parquet"))
        fake.reply = half_right
        num_before = len(fake.bodies)
        assert curate(path, "--out", out, *words) == 0
        assert len(fake.bodies) - num_before == 2
    assert ids(out) == [f"row-{i}" for i in range(4)]


def test_an_endpoint_that_gives_one_answer_a_request_is_asked_again():
    with serving(lambda body, number: (200, choices(str(number)))) as fake:
        ((_, texts),) = policy(fake.url).answers([Ask(numbered(1)[0], 3)])
    assert texts == ["1", "2", "3"]
    assert [body["n"] for body in fake.bodies] == [3, 2, 1]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_endpoint_is_tried_again(status):
    def busy(body, number):
        return half_right(body, number) if number == 3 else (status, b"busy")

    with serving(busy) as fake:
        ((_, texts),) = policy(fake.url, retries=2).answers([Ask(numbered(1)[0], 2)])
    assert len(texts) == 2 and len(fake.bodies) == 3


def test_a_row_that_the_endpoint_refuses_has_no_answers():
    def refuse_one(body, number):
        return (400, b"image too large") if "sum 0?" in str(body) else half_right(body, number)

    with serving(refuse_one) as fake:
        found = {
            sample.id: len(texts)
            for sample, texts in policy(fake.url).answers(Ask(row, 2) for row in numbered(2))
        }
    assert found == {"row-0": 0, "row-1": 2}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((404, b"no such model"), "HTTP 404 'no such model'; check --model"),
        ((400, b"bad"), "refuses every row: "),
        ((200, b"<html>"), "found the reply b'<html>'"),
        ((200, {"choices": []}), "needed: choices"),
    ],
)
def test_an_endpoint_that_cannot_work_stops_the_command(reply, said):
    with serving(lambda body, number: reply) as fake, pytest.raises(ConnectionError) as error:
        list(policy(fake.url).answers(Ask(row, 2) for row in numbered(9)))
    assert said in str(error.value)


def test_nobody_at_the_address_is_said_so(tmp_path, capsys):
    path = written(tmp_path / "train_a.parquet", numbered(1))
    words = ["--endpoint", "http://127.0.0.1:1/v1", "--model", "m", "--retries", "0"]
    assert curate(path, "--out", tmp_path / "out", *words) == 2
    assert "no answer in 1 tries" in capsys.readouterr().err


def test_several_rows_are_asked_at_a_time():
    meeting = threading.Barrier(3)

    def together(body, number):
        meeting.wait(10)
        return half_right(body, number)

    with serving(together) as fake:
        asks = [Ask(row, 1) for row in numbered(3)]
        assert len(list(policy(fake.url, concurrency=3).answers(asks))) == 3


def test_each_image_stands_where_its_marker_is():
    item = box_row(("dog", 0, 0, 9, 9), images=(ImageRef(data=png(1)), ImageRef(data=png(2))))
    question = (Message(role="user", content="Left <image> right <image> box"),)
    from dataclasses import replace

    item = replace(item, messages=(Message(role="system", content="Be short."), *question))
    first, second = chat_messages(item)
    assert first == {"role": "system", "content": "Be short."}
    kinds = [part.get("text", "image") for part in second["content"]]
    assert kinds == ["Left", "image", "right", "image", "box"]


def stored(path, num_right):
    """An evaluation's file: row i has `num_right[i]` right answers of 8, and a right greedy one."""

    def answer(text):
        return {"response": text, "score": 0.0, "status": "ok", "reason": ""}

    lines = [
        {
            "id": f"row-{row}",
            "source": "made",
            "greedy": answer(r"\boxed{7}"),
            "samples": [answer(r"\boxed{7}" if i < num else r"\boxed{0}") for i in range(8)],
        }
        for row, num in enumerate(num_right)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_stored_answers_are_judged_again_and_greedy_ones_left_out(tmp_path, capsys):
    path = written(tmp_path / "train_a.parquet", numbered(4))
    rollouts = stored(tmp_path / "rollouts.jsonl", [0, 3, 8])
    words = ["--rollouts", rollouts, "--band", "boxed=[1,7]/8"]
    assert curate(path, "--out", tmp_path / "out", *words) == 0
    assert ids(tmp_path / "out") == ["row-1"]
    lines = (tmp_path / "out" / "difficulty.jsonl").read_text().splitlines()
    assert [sum(json.loads(line)["scores"]) for line in lines] == [0, 3, 8]
    content = json.loads((tmp_path / "out" / "curation.json").read_text())
    assert content["sources"]["made"]["left_out"] == {
        "too_hard": 1,
        "too_easy": 1,
        "unjudged": 1,
    }
    assert content["bands"] == {"boxed": "[1,7]/8", "detection": "[2,10]/16"}
    capsys.readouterr()


def test_answers_to_other_rows_are_refused(tmp_path, capsys):
    path = written(tmp_path / "train_a.parquet", numbered(1, source="other"))
    rollouts = stored(tmp_path / "rollouts.jsonl", [1])
    assert curate(path, "--out", tmp_path / "out", "--rollouts", rollouts) == 2
    assert "sampled answers to none of the 1 rows" in capsys.readouterr().err


def test_the_table_says_what_each_rule_did_and_the_output_passes_the_check(tmp_path, capsys):
    path = written(tmp_path / "train_a.parquet", mixed())
    assert (
        curate(path, "--out", tmp_path / "out", "--rewrite-choices", "--skip", "single_multi") == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert "duplicates                 16        2          0" in lines
    assert "choice                      8        0          1" in lines
    assert "    row-6: 'Is it so?' -> 'true': the answer is 'true'" in lines
    assert "made                       10        7  duplicates 2, true_false 1" in lines
    assert not any(line.startswith("single_multi") for line in lines)
    assert main(["data", "check", str(tmp_path / "out")]) == 0
    assert sum(count_rows(file) for file in (tmp_path / "out").glob("*.parquet")) == 13


def test_a_dry_run_prints_the_table_and_writes_nothing(tmp_path, capsys):
    path = written(tmp_path / "train_a.parquet", numbered(3))
    words = ["--endpoint", "http://127.0.0.1:1/v1", "--model", "m", "--dry-run"]
    assert curate(path, "--out", tmp_path / "out", *words) == 0
    said = capsys.readouterr()
    assert "all                         3        3" in said.out
    assert "3 rows would be asked" in said.err and "3 of 3 rows would be kept" in said.err
    assert not (tmp_path / "out").exists()


def test_rules_are_listed_with_their_numbers_and_sources(capsys):
    assert curate("--list") == 0
    said = capsys.readouterr().out
    assert (
        "answer_length       answers of more than max_chars characters [chart, math, puzzle, "
        in said
    )
    assert "max_chars=20" in said and "arXiv 2505.18129" in said and "arXiv 2506.13585" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.parquet"], "--out FOLDER is missing"),
        (["a.parquet", "--out", "o"], "a.parquet: file is missing"),
        (["a.parquet", "--out", "o", "--skip", "english", "nope"], "--skip 'nope' is no rule"),
        (["a.parquet", "--out", "o", "--set", "english=1"], "NAME.PARAM=VALUE"),
        (["a.parquet", "--out", "o", "--band", "boxed=1"], "allowed: VERIFIER=[LOW,HIGH]/ANSWERS"),
        (["a.parquet", "--out", "o", "--endpoint", "http://h/v1"], "--endpoint without --model"),
        (
            ["a.parquet", "--out", "o", "--endpoint", "host", "--model", "m"],
            "allowed: http://HOST:PORT/v1",
        ),
        (
            ["a.parquet", "--out", "o", "--endpoint", "http://h", "--model-dir", "d"],
            "--endpoint and --model-dir are given",
        ),
        (["a.parquet", "--out", "o", "--rollouts", "r.jsonl"], "r.jsonl: no such file"),
    ],
)
def test_bad_input_is_exit_code_2_with_what_to_do(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert curate(*words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_curating_by_rules_loads_no_torch(tmp_path):
    path = written(tmp_path / "train_a.parquet", numbered(2))
    code = (
        "import sys; from recipes.cli import main;"
        f"assert main(['data', 'curate', {str(path)!r}, '--out', {str(tmp_path / 'out')!r}]) == 0;"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_saved_model_is_asked_and_a_second_run_repeats_it(smoke_run, tmp_path):
    data = next(smoke_run.cache.glob("data-*")) / "test"
    file = next(data.glob("test_counting_openmoji_count_*.parquet"))
    words = ["--model-dir", smoke_run.out, "--only", "duplicates", "--band", "boxed=[0,2]/2"]
    assert curate(file, "--out", tmp_path / "a", *words) == 0
    assert curate(file, "--out", tmp_path / "b", *words) == 0
    first, second = (tmp_path / name / "difficulty.jsonl" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    lines = [json.loads(line) for line in first.read_text().splitlines()]
    assert len(lines) == count_rows(file) > 0
    assert all(len(line["scores"]) == 2 for line in lines)


@pytest.mark.parametrize("name", RULES)
def test_the_page_has_each_rule_with_its_numbers(name):
    page = (Path(__file__).parents[1] / "docs" / "curate.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    assert all(f"`{param}={value:g}`" in line for param, value in RULES[name].params.items())
