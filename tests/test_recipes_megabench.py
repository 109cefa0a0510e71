"""`vl megabench` from the command line: asked, resumed, scored, compared, tabulated, shown."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from megabench_rows import row, write_rows
from PIL import Image

from data_specs.megabench import read_tasks
from recipes.cli import main
from recipes.megabench_ask import Answered
from recipes.megabench_run import JOURNAL, RESPONSES, RunPlan, num_unanswered, run_queries
from recipes.megabench_table import paper_row, paper_table
from tasks.megabench import TOO_MANY_IMAGES, Budget
from verifiers.megabench.files import read_responses, write_responses, write_scored


class FakeAsker:
    """Answers by query index; may be told to fail after so many."""

    name = "fake"

    def __init__(self, fail_after=None, answer="Answer: B", refuse=()):
        self.asked, self.fail_after, self.answer, self.refuse = [], fail_after, answer, refuse

    def answers(self, asks):
        for asked in asks:
            if len(self.asked) == self.fail_after:
                raise ConnectionError("the endpoint is gone")
            self.asked.append((asked.task.name, asked.query.index))
            if asked.query.index in self.refuse:
                yield Answered(asked, None, "HTTP 400")
            else:
                yield Answered(asked, self.answer)


@pytest.fixture
def media(tmp_path):
    folder = tmp_path / "media"
    (folder / "data").mkdir(parents=True)
    for name in "abc":
        Image.new("RGB", (6, 4), (200, 0, 0)).save(folder / "data" / f"{name}.png")
    return folder


@pytest.fixture
def dataset(tmp_path):
    rows = [row(n) for n in range(3)] + [row(3, task_name="worldle", answer={"answer": "C"})]
    write_rows(tmp_path / "dataset" / "core" / "test-0.parquet", rows)
    return tmp_path / "dataset"


def plan_of(dataset, media, tmp_path, **changes):
    options = {"media": media, "out": tmp_path / "out", "budget": Budget()} | changes
    return RunPlan(tasks=read_tasks(dataset, "core"), **options)


def stored(tmp_path):
    return {
        (task["task_name"], query["query_idx"]): query["response"]
        for task in read_responses(tmp_path / "out" / RESPONSES)
        for query in task["query_response"]
    }


def test_a_run_writes_the_official_file(dataset, media, tmp_path):
    result = run_queries(plan_of(dataset, media, tmp_path), FakeAsker())
    assert (result.num_asked, result.num_kept, list(result.refused)) == (4, 0, [])
    first, second = read_responses(tmp_path / "out" / RESPONSES)
    assert list(first) == [
        "task_name", "global_description", "global_images", "example_info", "query_response",
    ]  # fmt: skip
    assert first["query_response"][2] == {
        "response": "Answer: B",
        "correct_answer": {"answer": "B"},
        "global_idx": "2",
        "query_idx": 2,
        "images": ["./data/c.png"],
        "query_text": "<image>\nQuestion: where?",
    }
    assert second["task_name"] == "worldle"
    assert not (tmp_path / "out" / JOURNAL).exists()


def test_a_run_that_fails_goes_on_where_it_was(dataset, media, tmp_path):
    plan = plan_of(dataset, media, tmp_path)
    with pytest.raises(ConnectionError):
        run_queries(plan, FakeAsker(fail_after=2))
    assert num_unanswered(plan) == 2
    again = FakeAsker(answer="Answer: D")
    run_queries(plan, again)
    assert again.asked == [("waldo", 2), ("worldle", 0)]
    assert list(stored(tmp_path).values()) == ["Answer: B", "Answer: B", "Answer: D", "Answer: D"]


def test_a_run_that_was_killed_keeps_its_journal_less_a_torn_line(dataset, media, tmp_path):
    plan = plan_of(dataset, media, tmp_path)
    asker = FakeAsker(fail_after=2)
    with pytest.raises(ConnectionError):
        run_queries(plan, asker)
    # as after a kill: what is in the response file was only in the journal
    from recipes.megabench_run import _digest

    out = tmp_path / "out"
    lines = [
        json.dumps(["waldo", n, _digest(plan.tasks[0], plan.tasks[0].queries[n]), f"Answer: {n}"])
        for n in range(2)
    ]
    (out / RESPONSES).unlink()
    (out / JOURNAL).write_text(f"{lines[0]}\n{lines[1][:20]}")
    assert num_unanswered(plan) == 3
    run_queries(plan, FakeAsker())
    assert stored(tmp_path)["waldo", 0] == "Answer: 0"
    assert stored(tmp_path)["waldo", 1] == "Answer: B"


def test_only_what_has_changed_or_was_refused_in_words_is_asked_again(dataset, media, tmp_path):
    run_queries(plan_of(dataset, media, tmp_path), FakeAsker())
    rows = [row(0), row(1, query_text="<image>\nQuestion: who?"), row(2, answer={"answer": "X"})]
    write_rows(dataset / "core" / "test-0.parquet", [*rows, row(3, task_name="worldle")])
    path = tmp_path / "out" / RESPONSES
    stored_before = read_responses(path)
    stored_before[0]["query_response"][0]["response"] = "Error: rate limit exceeded"
    write_responses(path, stored_before)
    asker = FakeAsker()
    run_queries(plan_of(dataset, media, tmp_path), asker)
    assert asker.asked == [("waldo", 0), ("waldo", 1)]
    (waldo, _) = read_responses(path)
    assert waldo["query_response"][2]["correct_answer"] == {"answer": "X"}  # the new reference


def test_tasks_that_are_not_asked_now_keep_their_responses(dataset, media, tmp_path):
    run_queries(plan_of(dataset, media, tmp_path, only=frozenset({"worldle"})), FakeAsker())
    asker = FakeAsker()
    run_queries(plan_of(dataset, media, tmp_path, only=frozenset({"waldo"})), asker)
    assert [name for name, _ in asker.asked] == ["waldo"] * 3
    assert len(stored(tmp_path)) == 4


def test_a_refused_query_stays_unanswered_unless_told_otherwise(dataset, media, tmp_path):
    plan = plan_of(dataset, media, tmp_path)
    result = run_queries(plan, FakeAsker(refuse=(1,)))
    assert list(result.refused) == ["waldo query 1: HTTP 400"]
    assert ("waldo", 1) not in stored(tmp_path)
    run_queries(plan_of(dataset, media, tmp_path, keep_refusals=True), FakeAsker(refuse=(1,)))
    assert stored(tmp_path)["waldo", 1] == ""


def test_a_query_over_the_budget_gets_upstreams_words_without_being_asked(dataset, media, tmp_path):
    asker = FakeAsker()
    run_queries(plan_of(dataset, media, tmp_path, budget=Budget(max_images=2)), asker)
    assert asker.asked == []
    assert set(stored(tmp_path).values()) == {TOO_MANY_IMAGES}


def test_a_folder_of_another_protocol_is_refused(dataset, media, tmp_path):
    run_queries(plan_of(dataset, media, tmp_path), FakeAsker())
    with pytest.raises(ValueError, match=r"--out .*another protocol \(budget .*'max_images': 64"):
        run_queries(plan_of(dataset, media, tmp_path, budget=Budget(max_images=9)), FakeAsker())


class Endpoint(BaseHTTPRequestHandler):
    """Answers B, and keeps what it was asked."""

    bodies: list = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        reply = json.dumps({"choices": [{"message": {"content": "I see.\n\nAnswer: B"}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    Endpoint.bodies = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_is_asked_scored_compared_and_tabulated(
    endpoint, dataset, media, tmp_path, capsys
):
    out = tmp_path / "out"
    common = ["--data", str(dataset), "--media", str(media), "--workers", "1"]
    run = ["megabench", "run", "--model", "m", "--endpoint", endpoint, "--out", str(out), *common]
    assert main(run) == 0
    body = Endpoint.bodies[0]
    assert body["temperature"] == 0.0
    assert body["max_tokens"] == 8192
    kinds = [part["type"] for part in body["messages"][0]["content"]]
    # Find him in <image> . | Example 1: <image> ... | <image> Question
    assert kinds == ["text", "image_url", "text", "text", "image_url", "text", "image_url", "text"]
    assert body["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64")
    summary = json.loads((out / "analysis" / "summary_and_keyword_stats.json").read_text())
    assert summary["model_summary"]["core"]["macro_mean_score"] == 0.5  # waldo 1, worldle 0
    page = (out / "report.html").read_text()
    assert "Core 50.00 % (2 tasks)." in page
    assert page.count("<article") == 3  # two of waldo's queries, one of worldle's
    assert "data:image/jpeg;base64," in page
    assert "http" not in page.replace("http-equiv", "")
    capsys.readouterr()

    assert main(["megabench", "table", f"m={out}", "--format", "csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Model,Knowledge,Mathematics,Perception,Coding,Info. Ex.,Planning")
    assert lines[1] == "m,0.00,-,100.00,-,-,-,-,-,50.00,2"

    assert main(["megabench", "compare", str(out), str(out), "--out", str(out / "d.json")]) == 0
    assert "core" in capsys.readouterr().out
    groups = json.loads((out / "d.json").read_text())["groups"]
    assert groups["core"]["mean"] == 0.0
    assert main(["megabench", "sanity", "--data", str(dataset), "--workers", "1"]) == 0
    assert "0 of 2 tasks do not give their gold answers 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "missing.json"], "does not exist; give a response file"),
        (["run", "--model", "m", "--out", "o", "--tasks", "wald"], "did you mean waldo"),
        (["run", "--model", "m", "--out", "o"], "missing; unpack the dataset's data.zip"),
        (["table", "m=a", "m=b"], "is there twice"),
        (["score", "FILE", "--judge-model", "m"], "give both, or neither"),
    ],
)
def test_bad_input_ends_with_code_2_and_says_what_to_do(
    arguments, message, dataset, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("[]")
    if arguments[0] in ("run", "score"):
        arguments = [*arguments, "--data", str(dataset)]
    if arguments[0] == "run":
        arguments = [*arguments, "--endpoint", "http://127.0.0.1:1/v1"]
    assert main(["megabench", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def result(name, score, eval_type="rule"):
    return {"name": name, "score": score, "eval_type": eval_type, "num_demo": 1, "num_query": 10}


def test_the_papers_table_has_core_means_by_application():
    results = [result("waldo", 0.25), result("worldle", 0.5), result("ascii_art_30", 1.0, "llm")]
    row = paper_row("m", results)
    assert (row.by_application["Perception"], row.by_application["Knowledge"]) == (25.0, 50.0)
    assert (row.by_application["Coding"], row.overall, row.num_tasks) == (None, 37.5, 2)
    assert paper_row("m", results, "open").overall == 100.0
    assert paper_row("m", results, "all").overall == pytest.approx(175 / 3)
    assert paper_table([row], form="md").splitlines()[2].split("|")[4].strip() == "25.00"
    assert paper_table([row], form="latex").splitlines()[-1].startswith("m & 50.00 & - & 25.00")


def test_the_page_shows_unscored_tasks_and_hostile_text_as_text(tmp_path):
    pytest.importorskip("jinja2")
    from vl.report.megabench import render_results

    record = {
        "task_name": "ascii_art_30",
        "global_description": "",
        "global_images": [],
        "example_info": {"image_paths": [], "example_text": ""},
        "query_response": [
            {
                "response": "</script><script>alert(1)</script>\ud800\x00",
                "correct_answer": {"a": "<b>"},
                "global_idx": "0",
                "query_idx": 0,
                "images": ["./data/no.png"],
                "query_text": "<image>",
                "scores": {
                    "field": {},
                    "info": {},
                    "query": -1,
                    "unscored": {"reasons": {"a": "no judge"}, "field": {}},
                },
            }
        ],
        "task_score": -1,
        "mean_task_score": -1,
        "eval_type": "llm",
    }
    write_scored(tmp_path / "data_with_scores.json", [record])
    page = render_results(tmp_path / "report.html", [record], {}).read_text()
    assert "No task is scored." in page
    assert "no judge" in page
    assert "<script>alert" not in page
    assert "&lt;b&gt;" in page
    assert 'data-verdict-model="unscored"' in page


def test_a_model_of_ours_answers_greedily_with_all_pictures_where_they_stand(
    media, dataset, monkeypatch
):
    from tiny_vl import tiny_policy

    from recipes.megabench_ask import Asked, ModelAsker
    from tasks.megabench import build_parts

    policy = tiny_policy()
    asked_texts = []
    read = type(policy).read

    def spy(self, features, questions):
        asked_texts.append((len(features), questions[0].text))
        return read(self, features, questions)

    (task, _) = read_tasks(dataset, "core")
    asks = [
        Asked(task, query, build_parts(task, query, media, Budget()) or ())
        for query in task.queries[:2]
    ]
    asker = ModelAsker(policy, "tiny", Budget(), max_new_tokens=3)
    monkeypatch.setattr(type(policy), "read", spy)
    first = [answered.response for answered in asker.answers(asks)]
    assert [answered.response for answered in asker.answers(asks)] == first  # greedy
    assert asked_texts[0][0] == 1  # the query's three pictures are one entry
    assert asked_texts[0][1].startswith("Find him in<image>.Example 1:<image>Example Response")
    assert asked_texts[0][1].endswith("<image>Question: where?")
