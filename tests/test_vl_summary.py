"""Means, clustered intervals, pass@k and paired differences, by hand and from the lines again."""

import math
from collections import defaultdict

import numpy as np
import pytest

from vl.summary import average_score, best_score, summarise_difference, summarise_phase


def answer(score):
    status = "ok" if score is not None else "timeout"
    return {
        "response": "",
        "score": score,
        "format": None,
        "reward": score,
        "status": status,
        "reason": "",
        "parts": {},
        "num_tokens": 1,
    }


def line(row, greedy, samples=(), *, task="math", source="a", image=None, phase="sft"):
    return {
        **dict.fromkeys(("question", "prompt", "reference", "ground_truth"), ""),
        "phase": phase,
        "id": str(row),
        "source": source,
        "task": task,
        "image_id": image,
        "greedy": answer(greedy),
        "samples": [answer(score) for score in samples],
    }


def half_width(interval):
    assert interval["high"] - interval["mean"] == pytest.approx(interval["mean"] - interval["low"])
    return interval["high"] - interval["mean"]


def test_mean_and_interval_of_rows_without_shared_pictures():
    lines = [line(i, score) for i, score in enumerate([1.0, 0.0, 0.0, 1.0])]
    found = summarise_phase(lines)["source"]["a"]["greedy"]
    assert (found["mean"], found["n"]) == (0.5, 4)
    # the sample variance of the mean: 4 * 0.25 / 3 / 4
    assert half_width(found) == pytest.approx(1.959964 * math.sqrt(1 / 12))


def test_rows_of_one_picture_are_one_cluster():
    lines = [
        line(0, 1.0, image="x"),
        line(1, 1.0, image="x"),
        line(2, 0.0, image="y"),
        line(3, 0.0, image="y"),
    ]
    found = summarise_phase(lines)["source"]["a"]["greedy"]
    # residuals sum to 1 and -1 by picture: 2 * 2 / 1 / 16, as of two rows with 1 and 0
    assert half_width(found) == pytest.approx(1.959964 * 0.5)


def test_equal_picture_names_of_two_sources_are_two_clusters():
    lines = [
        line(0, 1.0, image="x", source="a"),
        line(1, 1.0, image="x", source="b"),
        line(2, 0.0, image="y", source="a"),
        line(3, 0.0, image="y", source="b"),
    ]
    found = summarise_phase(lines)["task"]["math"]["greedy"]
    assert half_width(found) == pytest.approx(1.959964 * math.sqrt(1 / 12))


def test_average_and_pass_at_k_leave_unscored_samples_out():
    one = line(0, 1.0, [0.2, None, 0.7])
    assert average_score(one) == pytest.approx(0.45) and best_score(one) == 1.0
    assert best_score(line(0, 1.0, [0.49, 0.2])) == 0.0
    assert best_score(line(0, 1.0, [0.5])) == 1.0
    nothing = line(0, None, [None, None])
    assert average_score(nothing) is None and best_score(nothing) is None


def test_unscored_answers_are_counted_and_not_averaged():
    lines = [line(0, 1.0, [1.0, None]), line(1, None, [None, None]), line(2, 0.0, [0.0, 0.0])]
    found = summarise_phase(lines)["source"]["a"]
    assert found["unscored"] == 4
    assert (found["greedy"]["mean"], found["greedy"]["n"]) == (0.5, 2)
    assert (found["avg@2"]["mean"], found["avg@2"]["n"]) == (0.5, 2)
    assert found["pass@2"]["mean"] == 0.5


def test_a_source_without_any_score_has_no_mean():
    found = summarise_phase([line(0, None)])["source"]["a"]
    assert found == {"unscored": 1}


def test_the_macro_average_weighs_tasks_alike_and_leaves_others_out():
    lines = [
        *(line(i, 1.0, task="math") for i in range(9)),
        line(9, 0.0, task="ocr"),
        line(10, 0.5, task="ocr"),
        line(11, 0.0, task="vqa"),
    ]
    found = summarise_phase(lines)
    macro = found["macro"]["greedy"]
    assert (macro["mean"], macro["n"]) == ((1.0 + 0.25) / 2, 11)
    # only ocr varies: (0.0625 + 0.0625) * 2 / 4 = 1/16, and half of its deviation counts
    assert half_width(macro) == pytest.approx(1.959964 * 0.25 / 2)
    assert set(found["task"]) == {"math", "ocr", "vqa"}


def test_differences_are_paired_row_by_row():
    earlier = [line(i, score) for i, score in enumerate([0.0, 1.0, 0.2, 0.4])]
    later = [line(i, score + 0.1, phase="rl") for i, score in enumerate([0.0, 1.0, 0.2, 0.4])]
    found = summarise_difference(later, earlier)["macro"]["greedy"]
    assert found["mean"] == pytest.approx(0.1)
    assert half_width(found) == pytest.approx(0.0, abs=1e-9)


def test_a_row_unscored_in_one_phase_takes_no_part_in_the_difference():
    earlier = [line(0, 0.0), line(1, None), line(2, 1.0)]
    later = [line(0, 1.0), line(1, 1.0), line(2, None)]
    found = summarise_difference(later, earlier)["source"]["a"]["greedy"]
    assert (found["mean"], found["n"]) == (1.0, 1)


def test_rows_of_two_sources_may_have_the_same_id():
    earlier = [line(0, 0.0, source="a"), line(0, 1.0, source="b")]
    later = [line(0, 0.5, source="a"), line(0, 1.0, source="b")]
    found = summarise_difference(later, earlier)["source"]
    assert found["a"]["greedy"]["mean"] == 0.5 and found["b"]["greedy"]["mean"] == 0.0


def test_phases_over_other_rows_are_not_compared():
    with pytest.raises(ValueError, match="phases rl and sft answered different rows"):
        summarise_difference([line(1, 0.0, phase="rl")], [line(2, 0.0)])


def test_intervals_equal_those_of_numpy_on_random_lines():
    random = np.random.default_rng(0)
    lines = [
        line(i, float(random.random()), image=f"p{random.integers(12)}", task="chart")
        for i in range(60)
    ]
    found = summarise_phase(lines)["task"]["chart"]["greedy"]
    scores = np.array([one["greedy"]["score"] for one in lines])
    clusters = defaultdict(list)
    for one, score in zip(lines, scores, strict=True):
        clusters[one["image_id"]].append(score - scores.mean())
    sums = np.array([sum(members) for members in clusters.values()])
    variance = len(sums) * sums.var(ddof=1) / 60**2  # the residuals sum to 0 over all
    assert found["mean"] == pytest.approx(scores.mean())
    assert half_width(found) == pytest.approx(1.959964 * variance**0.5)
