"""Held-out evaluation: a line a row, judged like training, and the summary of those lines."""

from dataclasses import replace

import pytest
import torch
from tiny_vl import corpus_of, judge_by_length, pose, tiny_policy

from verifiers import FixedIou, Verdict
from vl import evaluate as evaluate_module
from vl.evaluate import EvalConfig, evaluate, to_answer
from vl.parallel import Shards
from vl.rollout import Rollout
from vl.rundir import read_eval_rollouts
from vl.runlog import RunLog
from vl.summary import summarise_phase

CONFIG = EvalConfig(num_samples=3, max_new_tokens=6, pictures_per_batch=2)
POLICY = tiny_policy()


@pytest.fixture
def corpus():
    return corpus_of(1, 3, 2)


def lines_of(corpus, policy=POLICY, seed=0, phase="sft", config=CONFIG, **options):
    return evaluate(
        policy, corpus, pose, config, phase=phase, seed=seed, shards=Shards(2), **options
    )


def test_a_line_a_row_in_the_order_of_the_corpus(corpus):
    progress = []
    lines = lines_of(corpus, on_batch=lambda *done: progress.append(done))
    samples = [sample for picture in corpus.pictures for sample in picture.samples]
    assert [line["id"] for line in lines] == [sample.id for sample in samples]
    assert [line["image_id"] for line in lines] == ["p0", "p1", "p1", "p1", "p2", "p2"]
    assert progress == [(2, 3), (3, 3)]
    for line, sample in zip(lines, samples, strict=True):
        assert line["phase"] == "sft" and line["prompt"] == line["question"] == sample.question
        assert line["ground_truth"] == sample.reward.ground_truth
        assert len(line["samples"]) == 3 and 1 <= line["greedy"]["num_tokens"] <= 6


def test_the_seed_decides_the_samples_and_neither_phase_nor_seed_the_greedy_answers(corpus):
    first, again = lines_of(corpus), lines_of(corpus, phase="rl")
    assert [line["samples"] for line in first] == [line["samples"] for line in again]
    other = lines_of(corpus, seed=1)
    assert [line["samples"] for line in first] != [line["samples"] for line in other]
    assert [line["greedy"] for line in first] == [line["greedy"] for line in other]


def test_rows_about_other_pictures_do_not_change_a_rows_greedy_answer(corpus):
    together = lines_of(corpus)
    alone = lines_of(corpus, config=replace(CONFIG, pictures_per_batch=1))
    assert [line["greedy"] for line in together] == [line["greedy"] for line in alone]


def test_greedy_only(corpus):
    lines = lines_of(corpus, config=replace(CONFIG, num_samples=0))
    assert all(line["samples"] == [] for line in lines)
    assert set(summarise_phase(lines)["macro"]) == {"greedy"}


def test_a_right_answer_is_scored_one_by_the_rows_own_verifier(corpus, monkeypatch):
    contexts = []
    judge = evaluate_module.score_with

    def answering(scoring, items, context):
        contexts.append((context.progress, context.iou_rule, scoring.workers))
        right = [(s, s.reward.ground_truth if i % 4 else "no") for i, (s, _) in enumerate(items)]
        return judge(scoring, right, context)

    monkeypatch.setattr(evaluate_module, "score_with", answering)
    lines = lines_of(corpus)
    assert [line["greedy"]["score"] for line in lines] == [0.0] * 6
    assert all(a["score"] == 1.0 for line in lines for a in line["samples"])
    assert contexts == [(1.0, FixedIou(0.5), 1)] * 2


def test_the_summary_holds_the_means_of_the_written_lines(corpus, monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate_module, "score_with", judge_by_length)
    with RunLog(tmp_path, make_writer=None) as log:
        log.write_eval_rollouts("sft", lines_of(corpus))
    lines = read_eval_rollouts(tmp_path, "sft")
    found = summarise_phase(lines)
    for source in ("dots", "words"):
        rows = [line for line in lines if line["source"] == source]
        samples = [[a["score"] for a in line["samples"]] for line in rows]
        expected = {
            "greedy": [line["greedy"]["score"] for line in rows],
            "avg@3": [sum(scores) / 3 for scores in samples],
            "pass@3": [float(max(scores) >= 0.5) for scores in samples],
        }
        for name, values in expected.items():
            interval = found["source"][source][name]
            assert interval["mean"] == pytest.approx(sum(values) / len(values))
            assert interval["n"] == len(rows)
        assert found["source"][source]["unscored"] == 0


def test_evaluating_leaves_the_weights_and_the_gradients_alone(corpus):
    before = [param.detach().clone() for param in POLICY.model.parameters()]
    lines_of(corpus)
    for param, value in zip(POLICY.model.parameters(), before, strict=True):
        assert torch.equal(param, value) and param.grad is None


@pytest.mark.parametrize("mode", [True, False])
def test_evaluating_leaves_the_models_mode_alone(corpus, mode):
    POLICY.model.train(mode)
    lines_of(corpus)
    assert POLICY.model.training is mode
    POLICY.model.eval()


def test_an_unscored_verdict_is_logged_as_such():
    rollout = Rollout(token_ids=(1, 2), logprobs=(0.0, 0.0), text="x", stop="length")
    found = to_answer(rollout, Verdict.unscored("late", status="timeout"))
    assert (found["score"], found["reward"], found["status"]) == (None, None, "timeout")
    assert (found["reason"], found["num_tokens"], found["response"]) == ("late", 2, "x")
