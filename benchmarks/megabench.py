"""Seconds for scoring a response file of 7,000+ queries, against MEGA-Bench's own evaluation.

    python benchmarks/megabench.py TASKS.json [--upstream MEGA-Bench/megabench --python PYTHON]
        [--cases CASES.jsonl ...] [--queries 7689] [--data DATASET --responses FILE]

TASKS.json maps task names to parser, metrics, weights and context. Responses are made from the
cases given (`task`, `response`, `reference`, `extra.eval_context`, one a line): as they stand, and
with an answer put into sentences, cut off, changed, in a fence, as JSON over several lines. With
--data and --responses a real file is scored instead.

Judged fields have no judge here; upstream's judge is replaced by one that answers at once. Its
location look-up, which needs the network, is left out on both sides. Upstream runs in one process,
as its own command does, with PYTHON, which must have its requirements.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from data_specs.megabench import CONFIGS, MegaTask, group_rows, read_tasks
from verifiers.megabench.files import TaskRecord, read_responses, task_results, write_responses
from verifiers.megabench.score_file import ScoreOptions, score_responses

JUDGED = {"gpt_4o_as_judge", "ascii_art_gpt4o_judge"}

UPSTREAM = """
import json, os, sys, time
sys.path.insert(0, os.getcwd())
rows, responses, out = sys.argv[1:]
os.environ.setdefault("MEGABENCH_OPEN_API_KEY", "none")
import metrics.scoring.gpt_4o_as_judge as judge
judge.GPT4OJudgeScore.__init__ = lambda self, config: None
judge.GPT4OJudgeScore.match = lambda self, *a, **k: (0, "no judge")
from metrics.metric_type import MetricType
from evaluation_processor import EvaluationProcessor
import logging
logging.disable(logging.CRITICAL)
hf_data = json.load(open(rows))
started, cpu = time.perf_counter(), os.times()
evaluation = EvaluationProcessor(hf_data, responses, out + ".log", out)
evaluation.console_logger.handlers.clear()
evaluation.process()
ended = os.times()
used = sum(ended[:4]) - sum(cpu[:4])
print("SECONDS", time.perf_counter() - started, used)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tasks", type=Path, nargs="?", help="tasks.json")
    parser.add_argument("--cases", type=Path, nargs="+", default=[], help="cases as JSON lines")
    parser.add_argument("--queries", type=int, default=7689)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="folder or Hub id of the dataset")
    parser.add_argument("--responses", type=Path, help="a real response file")
    parser.add_argument("--upstream", type=Path, help="folder megabench of the official repository")
    parser.add_argument("--python", default=sys.executable, help="Python with its requirements")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.responses:
        rows: list[dict[str, str]] = []
        tasks = [task for config in CONFIGS[:2] for task in read_tasks(options.data, config)]
        records = read_responses(options.responses)
    else:
        rows, tasks, records = make(options)
    num_queries = sum(len(record["query_response"]) for record in records)
    print(f"{num_queries} queries of {len(records)} tasks")
    seconds = [ours(tasks, records, options.workers) for _ in range(options.rounds)]
    wall, cpu = sorted(seconds)[len(seconds) // 2]
    print(f"ours       {wall:8.1f} s wall {cpu:8.1f} s CPU, {options.workers} workers")
    slowest(tasks, records)
    if options.upstream:
        wall_up, cpu_up, scored = upstream(options, rows, records)
        print(f"upstream   {wall_up:8.1f} s wall {cpu_up:8.1f} s CPU   x{wall_up / wall:.1f} wall")
        agreement(records, scored)


def make(
    options: argparse.Namespace,
) -> tuple[list[dict[str, str]], list[MegaTask], list[TaskRecord]]:
    """Rows of the dataset, its tasks, and responses to as many queries as asked for."""
    known: dict[str, Any] = json.loads(options.tasks.read_text())
    cases: dict[str, list[dict[str, Any]]] = {}
    for path in options.cases:
        for line in path.read_text().splitlines():
            case = json.loads(line)
            if case.get("task") in known and isinstance(case["reference"], dict):
                cases.setdefault(case["task"], []).append(case)
    names = [name for name in known if name in cases]
    draw = random.Random(options.seed)
    rows: list[dict[str, str]] = []
    responses: list[str] = []
    for number in range(options.queries):
        name = names[number * len(names) // options.queries]
        case = draw.choice(cases[name])
        rows.append(row_of(number, name, known[name], case))
        responses.append(respond(case, draw))
    tasks = group_rows((f"made row {number}", row) for number, row in enumerate(rows))
    rest = iter(responses)
    records = [record_of(task, rest) for task in tasks]
    return rows, tasks, records


def row_of(number: int, name: str, task: dict[str, Any], case: dict[str, Any]) -> dict[str, str]:
    info = {key: task[key] for key in ("field_score_function", "aggregation")}
    info["response_parse_function"] = task["parser"]
    if JUDGED & set(task["field_score_function"].values()):
        info["gpt4o_eval_configs"] = {}
    context = case.get("extra", {}).get("eval_context", task.get("eval_context", {}))
    columns = {"answer": case["reference"], "metric_info": info, "eval_context": context}
    return {
        "id": str(number),
        "task_name": name,
        "task_description": "Answer.",
        "global_media": "[]",
        "example_text": "Example 1:",
        "example_media": "[]",
        "query_text": "Question: what?",
        "query_media": "[]",
    } | {key: repr(value) for key, value in columns.items()}


def respond(case: dict[str, Any], draw: random.Random) -> str:
    """A response as models give them; half of them are the case's own."""
    own = case["response"] if isinstance(case["response"], str) else ""
    answer = own.split("Answer:")[-1].strip()
    kind = draw.choice(["own"] * 5 + ["reason", "bold", "fence", "wrong", "json"])
    if kind == "reason":
        words = " ".join(draw.choices(["the", "image", "shows", "a", "[1]", "{", "so", "="], k=150))
        return f"Let me think. {words}\n\nAnswer: {answer}"
    if kind == "bold":
        return f"I see it.\n\n**Answer: {answer}**"
    if kind == "fence":
        return f"Answer:\n```\n{answer}\n```"
    if kind == "wrong":
        return f"Answer: {answer[: len(answer) // 2]}{draw.randint(0, 99)}"
    if kind == "json":
        return json.dumps(case["reference"], indent=2, default=str)
    return own


def record_of(task: MegaTask, responses: Any) -> TaskRecord:
    return {
        "task_name": task.name,
        "global_description": task.description,
        "global_images": [],
        "example_info": {"image_paths": [], "example_text": task.example_text},
        "query_response": [
            {
                "response": next(responses),
                "correct_answer": dict(query.answer),
                "global_idx": query.id,
                "query_idx": query.index,
                "images": [],
                "query_text": query.text,
            }
            for query in task.queries
        ],
    }


def ours(tasks: list[MegaTask], records: list[TaskRecord], workers: int) -> tuple[float, float]:
    """(wall, CPU) seconds; the workers' start is part of it."""
    started, cpu = time.perf_counter(), cpu_s()
    score_responses(tasks, records, options=ScoreOptions(workers=workers))
    return time.perf_counter() - started, cpu_s() - cpu


def cpu_s() -> float:
    usages = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def slowest(tasks: list[MegaTask], records: list[TaskRecord], shown: int = 6) -> None:
    """Wall seconds of the metrics that cost most, in this process."""
    spent: dict[str, float] = {}
    for record in records:
        task = next(task for task in tasks if task.name == record["task_name"])
        started = time.perf_counter()
        score_responses([task], [record], options=ScoreOptions(workers=0))
        key = "+".join(sorted(set(task.field_metrics.values())))
        spent[key] = spent.get(key, 0.0) + time.perf_counter() - started
    for key in sorted(spent, key=lambda key: -spent[key])[:shown]:
        print(f"  {spent[key]:8.2f} s  {key[:80]}")


def upstream(
    options: argparse.Namespace, rows: list[dict[str, str]], records: list[TaskRecord]
) -> tuple[float, float, list[TaskRecord]]:
    """(wall, CPU) seconds of the official evaluation, and what it wrote."""
    folder = Path(tempfile.mkdtemp())
    samples: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        samples.setdefault(row["task_name"], []).append(row)
    data = [{"task_name": name, "task_samples": group} for name, group in samples.items()]
    (folder / "rows.json").write_text(json.dumps(data))
    write_responses(folder / "responses.json", records)
    files = [str(folder / name) for name in ("rows.json", "responses.json", "scored.json")]
    done = subprocess.run(
        [options.python, "-c", UPSTREAM, *files],
        cwd=options.upstream,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"upstream failed:\n{done.stderr[-3000:]}")
    _, wall, cpu = done.stdout.strip().splitlines()[-1].split()
    return float(wall), float(cpu), read_responses(folder / "scored.json")


def agreement(ours: list[TaskRecord], theirs: list[TaskRecord]) -> None:
    """Queries on which both agree, of those that we score."""
    same = total = 0
    results = {result["name"] for result in task_results(ours)}
    for mine, other in zip(ours, theirs, strict=True):
        if mine["task_name"] not in results:
            continue
        pairs = zip(mine["query_response"], other["query_response"], strict=True)
        for first, second in pairs:
            total += 1
            gap = first["scores"]["query"] - second["scores"]["query"]  # type: ignore[typeddict-item]
            same += abs(gap) < 1e-9
            if abs(gap) >= 1e-9:
                print("  differs", mine["task_name"], repr(first["response"][:100]), gap)
    print(f"agreement  {same} of {total} queries")


if __name__ == "__main__":
    main()
