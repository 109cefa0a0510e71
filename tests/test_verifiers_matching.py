import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verifiers_cases import make

from data_specs import Box, iou
from verifiers import AveragedIou, FixedIou, ScoreContext, StagedIou, score
from verifiers.matching import (
    MAP_THRESHOLDS,
    average_precisions,
    iou_matrix,
    match_by_iou,
    match_by_label,
)

LABELS = ("dog", "cat")


def box(x1, y1, x2, y2, label="dog"):
    return Box(x1, y1, x2, y2, label, "per_mille")


def written(boxes):
    entries = [
        f"{{'bbox_2d': [{b.x1:g}, {b.y1:g}, {b.x2:g}, {b.y2:g}], 'label': '{b.label}'}}"
        for b in boxes
    ]
    return f"<answer>[{', '.join(entries)}]</answer>"


boxes = st.builds(
    lambda x, y, w, h, label: box(x, y, x + w, y + h, label),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(LABELS),
)
scenes = st.lists(boxes, min_size=1, max_size=5, unique=True)


@settings(max_examples=50, deadline=None)
@given(scenes, scenes)
def test_the_matrix_agrees_with_the_one_iou(references, predicted):
    expected = [[iou(a, b) for b in predicted] for a in references]
    np.testing.assert_allclose(iou_matrix(references, predicted), expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(scenes, scenes, st.sampled_from([0.1, 0.5]))
def test_matching_by_label_is_the_best_of_all_assignments(references, predicted, threshold):
    ious = iou_matrix(references, predicted)
    same = np.array([[a.label == b.label for b in predicted] for a in references])
    worth = np.where(same & (ious >= threshold), ious, 0.0)
    short, long = sorted(worth.shape)
    if worth.shape[0] != short:
        worth = worth.T
    best = max(
        sum(worth[i, j] for i, j in enumerate(order))
        for order in itertools.permutations(range(long), short)
    )
    found = match_by_label(ious, same, threshold)
    assert sum(match.iou for match in found) == pytest.approx(best)


def test_matching_by_iou_counts_a_wrong_label_as_found_with_nothing():
    ious = np.array([[1.0, 0.6], [0.6, 0.9]])
    same = np.array([[False, True], [True, True]])
    assert match_by_iou(ious, same, 0.5) == [(0, 0, 0.0), (1, 1, 0.9)]


def naive_map(references, predicted, threshold):
    """COCO's average precision by its definition, one loop at a time."""
    values = []
    for label in sorted({b.label for b in references}):
        refs = [b for b in references if b.label == label]
        taken, hits = set(), []
        for b in [b for b in predicted if b.label == label]:
            free = [(iou(r, b), i) for i, r in enumerate(refs) if i not in taken]
            best = max(free, default=(0.0, -1))
            hits.append(best[0] >= threshold)
            if hits[-1]:
                taken.add(best[1])
        total = 0.0
        for recall in np.linspace(0, 1, 101):
            reached = [
                sum(hits[: k + 1]) / (k + 1)
                for k in range(len(hits))
                if sum(hits[: k + 1]) / len(refs) >= recall
            ]
            total += max(reached, default=0.0)
        values.append(total / 101)
    return sum(values) / len(values)


@settings(max_examples=60, deadline=None)
@given(scenes, scenes)
def test_map_agrees_with_its_definition(references, predicted):
    ious = iou_matrix(references, predicted)
    labels = [[b.label for b in group] for group in (references, predicted)]
    found = average_precisions(ious, *labels)
    expected = [naive_map(references, predicted, at) for at in MAP_THRESHOLDS]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_map_of_one_hit_after_one_miss_is_a_half():
    references, predicted = [box(0, 0, 10, 10)], [box(50, 50, 60, 60), box(0, 0, 10, 10)]
    verdict = score(make("detection", written(references)), written(predicted))
    assert verdict.parts["map50"] == 0.5


SCENE = [box(0, 0, 10, 10), box(2, 0, 12, 10), box(50, 50, 90, 90, "cat")]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_perfect_answer_scores_one_in_any_order(order):
    verdict = score(make("detection", written(SCENE)), written([SCENE[i] for i in order]))
    assert verdict.score == 1.0
    assert verdict.parts["iou_99"] == 1.0
    assert verdict.parts["map"] == 1.0


@settings(max_examples=60, deadline=None)
@given(scenes, scenes, st.randoms(use_true_random=False))
def test_the_order_of_boxes_does_not_matter(references, predicted, random):
    before = score(make("detection", written(references), iou_threshold=0.3), written(predicted))
    random.shuffle(predicted)
    random.shuffle(references)
    after = score(make("detection", written(references), iou_threshold=0.3), written(predicted))
    assert after.score == pytest.approx(before.score)
    assert after.parts["iou"] == pytest.approx(before.parts["iou"])


@settings(max_examples=60, deadline=None)
@given(scenes, scenes)
def test_a_wrong_box_more_never_raises_the_score(references, predicted):
    sample = make("detection", written(references), iou_threshold=0.3)
    wrong = box(500, 500, 900, 900)
    before = score(sample, written(predicted)).score
    assert score(sample, written([*predicted, wrong])).score <= before + 1e-12


@pytest.mark.parametrize(
    ("progress", "threshold"),
    [(0.0, 0.85), (0.10, 0.85), (0.11, 0.95), (0.25, 0.95), (0.26, 0.99), (1.0, 0.99)],
)
def test_the_stages_are_those_of_the_paper(progress, threshold):
    assert StagedIou().thresholds(progress) == (threshold,)


def test_the_rule_decides_what_an_iou_of_nine_tenths_is_worth():
    sample = make("detection", written([box(0, 0, 100, 100)]))
    response = written([box(0, 0, 100, 90)])

    def worth(rule, progress=1.0):
        return score(sample, response, ScoreContext(progress=progress, iou_rule=rule)).score

    assert worth(FixedIou(0.9)) == 0.9
    assert worth(FixedIou(0.91)) == 0.0
    assert worth(StagedIou(), 0.05) == 0.9
    assert worth(StagedIou(), 0.5) == 0.0
    assert worth(AveragedIou()) == pytest.approx(0.9 * 9 / 10)


@pytest.mark.parametrize(
    "make_rule",
    [
        lambda: FixedIou(0.0),
        lambda: FixedIou(1.5),
        lambda: StagedIou(stages=((0.5, 0.9),)),
        lambda: StagedIou(stages=((0.5, 0.9), (0.2, 0.9), (1.0, 0.9))),
        lambda: AveragedIou(values=()),
        lambda: ScoreContext(progress=2.0),
    ],
)
def test_an_impossible_rule_is_refused(make_rule):
    with pytest.raises(ValueError, match=r"out of range|must rise|at least one"):
        make_rule()


def test_parts_of_one_of_two_boxes():
    references = [box(0, 0, 100, 100), box(200, 200, 300, 300, "cat")]
    verdict = score(make("detection", written(references)), written([box(0, 0, 100, 96)]))
    assert verdict.parts == pytest.approx(
        {
            "iou": 0.48,
            "iou_50": 0.48,
            "iou_75": 0.48,
            "iou_95": 0.48,
            "iou_99": 0.0,
            "map": 0.5,
            "map50": 0.5,
            "map75": 0.5,
            "num_pred": 1.0,
            "num_ref": 2.0,
            "iou_threshold": 0.99,
        }
    )


def test_resized_pixels_are_brought_to_whole_per_mille():
    sample = make(
        "detection",
        "<answer>[{'bbox_2d': [100, 500, 333, 900], 'label': 'dog'}]</answer>",
        det_verifier_normalized=True,
        image_grid_thw=[[1, 200, 300]],  # one frame, 200 px high, 300 px wide
    )
    response = "<answer>[{'bbox_2d': [30, 100, 100, 180], 'label': 'dog'}]</answer>"
    assert score(sample, response).score == 1.0


def test_resized_pixels_without_a_size_are_unscored():
    verdict = score(make("detection", written(SCENE), det_verifier_normalized=True), written(SCENE))
    assert (verdict.score, verdict.status) == (None, "bad_reference")
