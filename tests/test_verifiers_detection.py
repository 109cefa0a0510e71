import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verifiers_cases import BOX, make
from test_verifiers_matching import box, boxes, images, scenes, written

from verifiers import ScoreContext, check_spec, score, score_many
from verifiers.boxes_giou import SHARE_MAX, nearness, shaped
from verifiers.detection import PART_NAMES
from verifiers.matching import Pairs, match_best

RATIOS = (
    {"iou_max_label_first": 1.0, "iou_completeness": 0.3},
    {"iou_max_iou_first": 1.0, "iou_completeness": 0.3},
    {"iou_max_label_first": 0.5, "map": 0.25, "map50": 0.25},
    {"map": 1.0, "map75": 0.5},
)
SETTINGS = (
    {},
    {"iou_threshold": 0.3},
    {"iou_threshold": "averaged"},
    {"iou_threshold": 0.5, "matching": "label_first"},
    {"iou_threshold": 0.5, "matching": "reference_order"},
    {"iou_threshold": 0.5, "shaping": "giou"},
    {"predicted_space": "per_mille", "iou_threshold": 0.42},
    *({"det_reward_ratio": ratio, "iou_threshold": 0.5} for ratio in RATIOS),
)
SCENE = [box(0, 0, 10, 10), box(2, 0, 12, 10), box(50, 50, 90, 90, "cat")]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_perfect_answer_scores_one_in_any_order(order):
    verdict = score(make("detection", written(SCENE)), written([SCENE[i] for i in order]))
    assert verdict.score == 1.0
    assert verdict.parts["iou_99"] == 1.0
    assert verdict.parts["map"] == 1.0


@settings(max_examples=60, deadline=None)
@given(scenes, st.sampled_from(SETTINGS))
def test_the_reference_itself_scores_one(references, params):
    sample = make("detection", written(references), **params)
    assert check_spec(sample.reward) is None
    verdict = score(sample, written(references))
    assert (verdict.score, verdict.reason) == (1.0, "")


@settings(max_examples=80, deadline=None)
@given(
    images,
    st.sampled_from(({}, {"shaping": "giou"}, {"matching": "label_first"})),
    st.randoms(use_true_random=False),
)
def test_the_order_of_boxes_does_not_matter(image, params, random):
    references, predicted = image
    before = score(
        make("detection", written(references), iou_threshold=0.3, **params), written(predicted)
    )
    random.shuffle(predicted)
    random.shuffle(references)
    after = score(
        make("detection", written(references), iou_threshold=0.3, **params), written(predicted)
    )
    assert after.score == pytest.approx(before.score)
    # COCO's mAP knows no order but that of the text when all confidences are equal.
    same = [name for name in PART_NAMES if not name.startswith("map")]
    assert [after.parts[name] for name in same] == pytest.approx(
        [before.parts[name] for name in same]
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
def test_equal_ious_are_taken_in_an_order_that_the_text_does_not_decide(order):
    # The first reference overlaps both boxes by 2/3, the second only the right one.
    references = [box(100, 0, 200, 10), box(140, 0, 240, 10)]
    predicted = [box(80, 0, 180, 10), box(120, 0, 220, 10)]
    sample = make(
        "detection",
        written([references[i] for i in order]),
        iou_threshold=0.5,
        matching="label_first",
    )
    for answer in (predicted, predicted[::-1]):
        assert score(sample, written(answer)).score == pytest.approx(2 / 3)


@settings(max_examples=80, deadline=None)
@given(images, st.sampled_from(({}, {"shaping": "giou"}, {"iou_threshold": "averaged"})))
def test_a_wrong_box_more_never_raises_the_score(image, params):
    references, predicted = image
    sample = make("detection", written(references), **{"iou_threshold": 0.3} | params)
    before = score(sample, written(predicted)).score
    for wrong in (box(500, 500, 900, 900), box(0, 0, 1000, 1000), box(0, 0, 80, 80, "bird")):
        assert score(sample, written([*predicted, wrong])).score <= before + 1e-12


@settings(max_examples=60, deadline=None)
@given(boxes, boxes, boxes, st.sampled_from(({}, {"shaping": "giou"})))
def test_a_box_with_more_iou_never_scores_less(reference, first, second, params):
    sample = make("detection", written([reference]), iou_threshold=0.4, **params)
    found = [score(sample, written([b])) for b in (first, second)]
    found.sort(key=lambda verdict: verdict.parts["iou"])
    if found[1].parts["iou"] >= 0.4 or not params:
        assert found[0].score <= found[1].score


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=4),
    st.integers(0, 3),
    st.integers(0, 2),
    st.floats(0, 1),
)
def test_the_best_matching_never_falls_when_one_iou_rises(worth, i, j, rise):
    def total(matrix):
        values = sorted(((-v, *at) for at, v in np.ndenumerate(matrix) if v > 0), key=tuple)
        pairs = Pairs(
            [-v for v, _, _ in values],
            [a for _, a, _ in values],
            [b for _, _, b in values],
            [True] * len(values),
        )
        return np.array(match_best(pairs, matrix, (0.0, 0.5, 0.9)).totals)

    before = np.array(worth)
    after = before.copy()
    after[i % len(after), j] = max(after[i % len(after), j], rise)
    assert (total(after) >= total(before) - 1e-9).all()


REFERENCE = box(100, 100, 300, 300)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 990), st.integers(0, 990), st.integers(1, 999), st.integers(1, 999), boxes,
    st.sampled_from([0.3, 0.5, 0.9]),
)  # fmt: skip
def test_a_near_miss_earns_less_than_any_hit_and_more_than_the_whole_image(x, y, w, h, b, at):
    sample = make("detection", written([REFERENCE]), iou_threshold=at, shaping="giou")
    verdict = score(sample, written([box(x, y, min(1000, x + w), min(1000, y + h))]))
    if verdict.parts["iou"] < at:
        assert 0.0 <= verdict.score < SHARE_MAX * at
        assert verdict.parts["near"] == pytest.approx(verdict.score)
    else:
        assert verdict.score == verdict.parts["iou"] >= at
    assert score(sample, written([box(0, 0, 1000, 1000)])).score == 0.0


@settings(max_examples=60, deadline=None)
@given(boxes, boxes, boxes)
def test_nearness_rises_with_giou(reference, first, second):
    def giou(a, b):
        shared = max(0, min(a.x2, b.x2) - max(a.x1, b.x1)) * max(
            0, min(a.y2, b.y2) - max(a.y1, b.y1)
        )
        hull = (max(a.x2, b.x2) - min(a.x1, b.x1)) * (max(a.y2, b.y2) - min(a.y1, b.y1))
        union = a.area + b.area - shared
        return shared / union - (hull - union) / hull

    a = np.array([reference.corners], dtype=float)
    both = np.array([first.corners, second.corners], dtype=float)
    near = nearness(a, both, 1000.0 * 1000.0)[0]
    whole = reference.area / 1000**2
    expected = [max(0.0, (giou(reference, b) - whole) / (1 - whole)) for b in (first, second)]
    assert near == pytest.approx(expected, abs=1e-9)
    assert 0.0 <= near.min() <= near.max() <= 1.0


def test_two_near_misses_are_not_preferred_to_a_hit():
    ious = np.array([[0.8, 0.79], [0.79, 0.0]])
    near = np.array([[0.8, 0.79], [0.79, 0.0]])
    found = shaped(ious, np.ones((2, 2), dtype=bool), near, 0.8)
    assert found.total == pytest.approx(0.8)
    assert found.near == 0.0


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(images | st.tuples(scenes, st.just([])), st.sampled_from(SETTINGS)),
        min_size=2,
        max_size=6,
    )
)
def test_many_at_once_are_judged_as_one_by_one(judged):
    items = [
        (make("detection", written(references), **params), written(predicted))
        for (references, predicted), params in judged
    ]
    items += [(items[0][0], "no tag"), (make("detection", "no boxes"), items[0][1])]
    items += [(make("detection", BOX, iou_threshold=2.0), BOX), (items[0][0], items[1][1])]
    assert score_many(items) == [score(sample, response) for sample, response in items]


def test_parts_of_one_of_two_boxes():
    references = [box(0, 0, 100, 100), box(200, 200, 300, 300, "cat")]
    verdict = score(make("detection", written(references)), written([box(0, 0, 100, 96)]))
    names = ["50", "55", "60", "65", "70", "75", "80", "85", "90", "95"]
    assert verdict.parts == pytest.approx(
        {"iou": 0.48}
        | {f"iou_{at}": 0.48 for at in names}
        | {f"iou_first_{at}": 0.48 for at in names}
        | {
            "iou_99": 0.0,
            "iou_first_99": 0.0,
            "precision_50": 1.0,
            "recall_50": 0.5,
            "map": 0.5,
            "map50": 0.5,
            "map75": 0.5,
            "num_pred": 1.0,
            "num_ref": 2.0,
            "size_penalty": 1.0,
            "iou_threshold": 0.99,
        }
    )


def test_parts_of_a_wrong_label_and_a_box_too_many():
    predicted = [box(0, 0, 100, 100, "cat"), box(0, 0, 100, 80), box(500, 500, 600, 600)]
    ratio = {"iou_max_label_first": 1.0, "iou_completeness": 0.5}
    sample = make(
        "detection", written([box(0, 0, 100, 100)]), iou_threshold=0.8, det_reward_ratio=ratio
    )
    verdict = score(sample, written(predicted))
    # One of one found at 0.8, completeness (1/1 + 1/3) / 2, two boxes too many.
    assert verdict.score == pytest.approx((0.5 * 0.8 + 0.5 * 2 / 3) * 0.36)
    assert verdict.parts["iou_80"] == 0.8
    assert verdict.parts["iou_85"] == 0.0
    # The cat lies better, and takes the box with nothing.
    assert verdict.parts["iou_first_50"] == 0.0
    assert verdict.parts["precision_50"] == pytest.approx(1 / 3)
    assert verdict.parts["recall_50"] == 1.0
    assert verdict.parts["map50"] == 1.0
    assert verdict.parts["map"] == pytest.approx(0.7)
    assert verdict.parts["size_penalty"] == pytest.approx(0.36)


@pytest.mark.parametrize(
    "response",
    ["", "<answer></answer>", "<answer>dog</answer>", "<answer>[]</answer>", BOX, "<answer>[1]"],
)
@pytest.mark.parametrize("reference", [BOX, "<answer>[]</answer>"])
def test_every_scored_verdict_has_all_parts(response, reference):
    verdict = score(make("detection", reference), response)
    assert set(verdict.parts) == set(PART_NAMES)
    if not verdict.parts["num_pred"] and "dog" in reference:
        assert verdict.parts["iou"] == verdict.parts["size_penalty"] == 0.0


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "a dog",
        "<answer>dog</answer>",
        "<answer>[{'bbox_2d': [9, 9, 1, 1], 'label': 'dog'}]</answer>",
        "<answer>[{'bbox_2d': [1, 1, 1, 9], 'label': 'dog'}]</answer>",
        "<answer>[{'bbox_2d': [1, 1, NaN, 9], 'label': 'dog'}]</answer>",
        "<answer>[{'bbox_2d': [1, 1, 9, 9], 'label': 'dog'}, [1, 1, 2, 2]]</answer>",
        "<answer>[{'bbox_2d': [1, 1, 9, 9], 'label': 'dog'}",
        "<answer>[" + "[1, 1, 2, 2], " * 600 + "]</answer>",
    ],
)
def test_a_reference_that_cannot_be_met_is_unscored(reference):
    verdict = score(make("detection", reference), BOX)
    assert (verdict.score, verdict.status) == (None, "bad_reference")
    assert verdict.reason


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"matching": "best"}, "matching is 'best'; allowed: label_first"),
        ({"shaping": "diou"}, "shaping is 'diou'; allowed: giou, none"),
        ({"shaping": "giou", "det_reward_ratio": {"map": 1.0}}, "beside det_reward_ratio"),
        ({"shaping": "giou", "matching": "label_first"}, "beside det_reward_ratio or another"),
        ({"iou_threshold": 0}, "iou_threshold is 0; allowed: above 0"),
        ({"iou_threshold": "dynamic"}, "allowed: averaged, staged"),
        ({"iou_threshold": True}, "iou_threshold is True"),
        ({"predicted_space": "percent"}, "predicted_space is 'percent'"),
        ({"det_verifier_normalized": "yes"}, "det_verifier_normalized is 'yes'"),
        ({"det_verifier_normalized": True, "predicted_space": "unit"}, "says resized"),
        ({"det_reward_ratio": {"map": -1.0}}, "det_reward_ratio.map is -1.0"),
        ({"det_reward_ratio": {"iou_completeness": 0.3}}, "must be above 0"),
        ({"det_reward_ratio": {"mAP": 1.0}}, "parameter 'mAP' is unknown"),
        ({"det_reward_ratio": [1.0]}, "allowed: a mapping of weights"),
    ],
)
def test_a_wrong_parameter_is_named_and_unscored(params, message):
    sample = make("detection", BOX, **params)
    assert message in (check_spec(sample.reward) or "")
    verdict = score(sample, BOX)
    assert (verdict.score, verdict.status) == (None, "bad_reference")
    assert message in verdict.reason


def test_an_unknown_parameter_is_named():
    problem = check_spec(make("detection", BOX, threshold=0.5).reward)
    assert "parameter 'threshold' is unknown; allowed: det_reward_ratio" in problem


def test_the_staged_rule_of_a_row_follows_progress():
    sample = make("detection", written([box(0, 0, 100, 100)]), iou_threshold="staged")
    response = written([box(0, 0, 100, 90)])
    assert score(sample, response, ScoreContext(progress=0.05)).score == 0.9
    assert score(sample, response, ScoreContext(progress=0.2)).score == 0.0


def test_a_threshold_that_is_not_reported_is_paid_as_well():
    sample = make("detection", written([box(0, 0, 100, 100)]), iou_threshold=0.42)
    assert score(sample, written([box(0, 0, 100, 42)])).score == 0.42
    assert score(sample, written([box(0, 0, 100, 41)])).score == 0.0
    assert score(sample, written([box(0, 0, 100, 42)])).parts["iou_50"] == 0.0


def test_three_hundred_boxes_are_scored_box_by_box():
    grid = [box(x, y, x + 40, y + 40) for x, y in itertools.product(range(0, 950, 50), repeat=2)][
        :300
    ]
    verdict = score(make("detection", written(grid)), written(grid[::-1]))
    assert (verdict.score, verdict.parts["num_pred"]) == (1.0, 300.0)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.integers(-50, 1100) | st.floats(-1e7, 1e7) | st.just(math.nan)] * 4),
        max_size=6,
    ),
    st.sampled_from(SETTINGS),
)
def test_any_numbers_give_a_finite_score(corners, params):
    listed = ", ".join(f"{{'bbox_2d': {list(c)}, 'label': 'dog'}}" for c in corners)
    verdict = score(make("detection", BOX, **params), f"<answer>[{listed}]</answer>")
    assert 0.0 <= verdict.score <= 1.0
    assert all(math.isfinite(value) for value in verdict.parts.values())
