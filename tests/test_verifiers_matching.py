import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verifiers_cases import make

from data_specs import Box, iou
from verifiers import AveragedIou, FixedIou, ScoreContext, StagedIou, boxes_overlap, score
from verifiers.boxes_map import MAP_THRESHOLDS, average_precisions
from verifiers.boxes_overlap import Scene, overlaps
from verifiers.matching import (
    LEVELS,
    Pairs,
    match_best,
    match_by_iou,
    match_by_label,
    match_in_order,
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
# Boxes that compete for each other at the thresholds that are reported.
crowds = st.lists(
    st.builds(
        lambda x, y, w, h, label: box(x, y, x + w, y + h, label),
        *(st.integers(0, 9), st.integers(0, 9), st.integers(20, 30), st.integers(20, 30)),
        st.sampled_from(("dog", "dog", "dog", "cat")),
    ),
    min_size=1,
    max_size=6,
    unique=True,
)
images = st.tuples(scenes, scenes) | st.tuples(crowds, crowds)


def overlap(references, predicted, lowest=0.5, **options):
    """References and predicted boxes of one image."""
    scene = Scene(
        np.array([b.corners for b in references], dtype=float),
        [b.label for b in references],
        [b.corners for b in predicted],
        [b.label for b in predicted],
    )
    return overlaps([scene], lowest, **options)[0]


def label_counts(references):
    labels = [b.label for b in references]
    return {label: labels.count(label) for label in labels}


def precisions(references, predicted, close=None):
    """As the verifier calls it, with boxes in the order written."""
    return average_precisions(
        overlap(references, predicted).close if close is None else close,
        label_counts(references),
        [b.label for b in predicted],
        range(len(references)),
        range(len(predicted)),
    )


@settings(max_examples=50, deadline=None)
@given(scenes, scenes)
def test_the_matrix_agrees_with_the_one_iou_where_labels_agree(references, predicted):
    expected = [[iou(a, b) * (a.label == b.label) for b in predicted] for a in references]
    np.testing.assert_allclose(overlap(references, predicted).worth, expected, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(images)
def test_pairs_are_all_that_overlap_by_falling_iou(image):
    references, predicted = image
    pairs = overlap(references, predicted, lowest=0.3).pairs
    expected = {
        (i, j): (iou(a, b), a.label == b.label)
        for i, a in enumerate(references)
        for j, b in enumerate(predicted)
        if iou(a, b) >= 0.3 or (iou(a, b) > 0 and a.label == b.label)
    }
    places = list(zip(pairs.references, pairs.predicted, strict=True))
    assert dict(zip(places, zip(pairs.values, pairs.same, strict=True), strict=True)) == expected
    assert pairs.values == sorted(pairs.values, reverse=True)


@settings(max_examples=60, deadline=None)
@given(images)
def test_the_best_matching_is_the_best_of_all_assignments(image):
    references, predicted = image
    found = overlap(references, predicted)
    worth = found.worth
    totals = match_best(found.pairs, worth, LEVELS).totals
    short, long = sorted(worth.shape)
    worth = worth if worth.shape[0] == short else worth.T
    for level, total in zip(LEVELS, totals, strict=True):
        allowed = np.where(worth >= level, worth, 0.0)
        assert total == pytest.approx(
            max(
                sum(allowed[i, j] for i, j in enumerate(order))
                for order in itertools.permutations(range(long), short)
            )
        )


def test_the_best_matching_prefers_two_good_pairs_to_one_better_pair():
    references = [box(0, 0, 100, 100), box(0, 30, 100, 130)]
    found = overlap(references, [box(0, 10, 100, 110), box(0, 0, 100, 80)])
    best = match_best(found.pairs, found.worth, (0.0, 0.5, 0.7, 0.9))
    assert best.totals == pytest.approx([0.8 + 2 / 3, 0.8 + 2 / 3, 9 / 11, 0.0])
    assert best.nums == [2, 2, 1, 0]
    greedy = match_by_label(found.pairs, (0.0, 0.5, 0.7, 0.9))
    assert greedy.totals == pytest.approx([9 / 11 + 50 / 130, 9 / 11, 9 / 11, 0.0])


def test_matching_by_iou_counts_a_wrong_label_as_found_with_nothing():
    pairs = Pairs([1.0, 0.9, 0.6, 0.6], [0, 1, 0, 1], [0, 1, 1, 0], [False, True, True, True])
    assert match_by_iou(pairs, (0.5, 0.95)) == ([0.9, 0.0], [2, 1])


def test_among_equal_ious_the_pair_with_the_right_label_is_taken():
    references = [box(0, 0, 10, 10, "cat"), box(0, 0, 10, 10, "dog")]
    pairs = overlap(references, [box(0, 0, 10, 10, "dog")]).pairs
    assert match_by_iou(pairs, (0.5,)).totals == [1.0]


def naive_in_order(references, predicted, level):
    """V-Triune's label-first matching, one loop at a time: the IoUs of the pairs."""
    used, taken = set(), []
    for a in references:
        offers = [
            (iou(a, b), -j)
            for j, b in enumerate(predicted)
            if b.label == a.label and j not in used and iou(a, b) > 0
        ]
        if offers and max(offers)[0] >= level:
            used.add(-max(offers)[1])
            taken.append(max(offers)[0])
    return taken


@settings(max_examples=60, deadline=None)
@given(images)
def test_matching_in_order_is_that_of_upstream(image):
    references, predicted = image
    pairs = overlap(references, predicted, is_thinned=False).pairs
    found = match_in_order(pairs, range(len(references)), range(len(predicted)), LEVELS)
    expected = [naive_in_order(references, predicted, level) for level in LEVELS]
    assert found.totals == pytest.approx([sum(taken) for taken in expected])
    assert found.nums == [len(taken) for taken in expected]


@settings(max_examples=60, deadline=None)
@given(images)
def test_a_large_image_is_matched_like_a_small_one(image):
    references, predicted = image
    small = overlap(references, predicted)
    large_pairs, boxes_overlap.LARGE_PAIRS = boxes_overlap.LARGE_PAIRS, 0
    try:
        large = overlap(references, predicted)
        whole = overlap(references, predicted, is_thinned=False)
    finally:
        boxes_overlap.LARGE_PAIRS = large_pairs
    np.testing.assert_array_equal(large.worth, small.worth)
    assert whole.pairs == small.pairs
    # Pairs of different labels are complete from the lowest level on.
    assert match_by_iou(large.pairs, LEVELS[1:]) == match_by_iou(small.pairs, LEVELS[1:])
    assert match_by_label(large.pairs, LEVELS) == match_by_label(small.pairs, LEVELS)
    assert match_best(large.pairs, large.worth, LEVELS) == match_best(
        small.pairs, small.worth, LEVELS
    )
    assert precisions(references, predicted, large.close) == precisions(references, predicted)


@settings(max_examples=40, deadline=None)
@given(st.lists(images, min_size=2, max_size=5))
def test_images_do_not_touch_each_other(images):
    scenes_of = [
        Scene(
            np.array([b.corners for b in references], dtype=float),
            [b.label for b in references],
            [b.corners for b in predicted],
            [b.label for b in predicted],
        )
        for references, predicted in images
    ]
    together = overlaps(scenes_of, 0.5)
    for found, (references, predicted) in zip(together, images, strict=True):
        alone = overlap(references, predicted)
        assert found.pairs == alone.pairs
        np.testing.assert_array_equal(found.worth, alone.worth)


def naive_map(references, predicted, threshold):
    """COCO's average precision by its definition, one loop at a time."""
    values = []
    for label in sorted({b.label for b in references}):
        refs = [b for b in references if b.label == label]
        taken, hits = set(), []
        for b in [b for b in predicted if b.label == label][:100]:
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
@given(images)
def test_map_agrees_with_its_definition(image):
    references, predicted = image
    expected = [naive_map(references, predicted, at) for at in MAP_THRESHOLDS]
    np.testing.assert_allclose(precisions(references, predicted), expected, atol=1e-12)


def test_map_looks_at_a_hundred_boxes_of_a_class():
    references = [box(0, 0, 10, 10), box(20, 20, 30, 30)]
    misses = [box(100 + i, 100, 200 + i, 200) for i in range(99)]
    hits = [box(0, 0, 10, 10), box(20, 20, 30, 30)]
    predicted = [*misses, *hits]
    # The first hit is box 100, the second the 101st: recall 0.5 at precision 0.01, 51 points.
    assert precisions(references, predicted)[0] == pytest.approx(51 / 101 / 100)
    assert naive_map(references, predicted, 0.5) == pytest.approx(51 / 101 / 100)


def test_precision_never_rises_with_recall():
    references = [box(0, 0, 10, 10), box(20, 20, 30, 30)]
    predicted = [box(50, 50, 60, 60), *references]
    # Precision 1/2 at the first hit, 2/3 at the second: 2/3 counts for both.
    assert precisions(references, predicted) == pytest.approx([2 / 3] * 10)


def test_map_of_one_hit_after_one_miss_is_a_half():
    references, predicted = [box(0, 0, 10, 10)], [box(50, 50, 60, 60), box(0, 0, 10, 10)]
    verdict = score(make("detection", written(references)), written(predicted))
    assert verdict.parts["map50"] == 0.5


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
