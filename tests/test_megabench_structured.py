"""Metrics on boxes, LaTeX, texts, plans and programs: official scores, and limits of ours."""

import json
import math
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers.megabench import METRICS, Unscored, find_metric
from verifiers.megabench.latex_process import compare_latex
from verifiers.megabench.metrics_location import distance_km, read_places, use_geocoder
from verifiers.megabench.registry import Scored

CASES = Path(__file__).parent / "cases" / "megabench" / "structured_metric_cases.jsonl"
ROWS = [json.loads(line) for line in CASES.read_text().splitlines()]
ELSEWHERE = {"ascii_art_gpt4o_judge", "geo_proximity_location_dict"}
FAST = sorted(
    name
    for name, metric in METRICS.items()
    if metric.module in ("metrics_box", "constrained", "planning")
)
FUZZ = settings(max_examples=60, deadline=None, derandomize=True)
PARTS = st.sampled_from(
    [
        *("[", "]", "(", ")", "{", "}", ",", " ", "\n", "0.5", "1", "-1", "nan", "1e999", "'a'"),
        *("<point>", "</point>", "<box>", "</box>", "cat.", "Cats!", "the", "hmm", "(a)", '"', ":"),
        *("(go a b)", "None", "é", "..."),
    ]
)
TEXTS = st.lists(PARTS, max_size=14).map("".join)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)

DOMAIN = """(define (domain d)
 (:action open :parameters (?d) :precondition (and (shut ?d) (not (locked ?d)))
  :effect (and (not (shut ?d)) (opened ?d)))
 (:action lock :parameters (?d) :precondition (shut ?d) :effect (locked ?d)))"""
PROBLEM = "(define (problem p) (:init (shut a) (locked a)) (:goal (and (opened a))))"


def score(name, prediction, reference, mode="compat"):
    found = find_metric(name)(prediction, reference, mode=mode)
    return found.score if isinstance(found, Scored) else found


@pytest.mark.parametrize("name", sorted({row["metric"] for row in ROWS} - ELSEWHERE))
def test_structured_metrics_give_the_official_scores(name):
    if name == "gleu_cn":
        pytest.importorskip("jieba")
    for row in (row for row in ROWS if row["metric"] == name):
        found = find_metric(name)(row["response"], row["reference"], mode="compat")
        if isinstance(found, Scored):
            assert found.info == row["info"], row
            found = found.score
        wanted = math.nan if row["score"] == "NaN" else row["score"]
        assert found == pytest.approx(wanted, abs=1e-9, nan_ok=True), row


@FUZZ
@given(prediction=VALUES, reference=VALUES)
def test_no_value_makes_a_structured_metric_raise(prediction, reference):
    contexts = {
        "constrained_generation": {"contain##times": reference, "length": "<9", "syllables": "5"},
        "symbolic_planning_test": {"domain_pddl": DOMAIN, "task_pddl": PROBLEM},
        "xml_norm_point_in_bbox": {"bounding_boxes": reference},
    }
    for name, mode in product(FAST, ("compat", "sound")):
        found = score(name, prediction, contexts.get(name, reference), mode)
        assert math.isnan(found) or -1 <= found <= 1


@FUZZ
@given(text=TEXTS, constraint=st.sampled_from(["contain", "contain_only", "acrostic", "syllables"]))
def test_no_poem_and_no_constraint_make_constrained_generation_raise(text, constraint):
    context = {constraint: text or "x", "rhyming_scheme": "ab", "poetry_meter": "iambic"}
    assert score("constrained_generation", text, context) in (0, 1)


def test_a_box_scores_its_best_overlap():
    # the halves of a square: intersection 0.5, union 1
    assert score("nbbox_iou_tuple", "[(0, 0, 1, 0.5)]", "[(0, 0, 1, 1), (5, 5, 6, 6)]") == 0.5
    assert score("xml_nbbox_iou_single", "<box>0,0,1,1</box>", "<box>0,0,0.5,1</box>") == 0.5
    assert score("xml_norm_point_distance", "<point>0, 0.3</point>", "<point>0.4, 0</point>") == 0.5


def test_sound_takes_a_flat_list_for_one_box_and_a_box_inside_out_for_none():
    assert score("nbbox_iou_tuple", [0, 0, 1, 1], "[0, 0, 1, 1]") == 0
    assert score("nbbox_iou_tuple", [0, 0, 1, 1], "[0, 0, 1, 1]", "sound") == 1
    inside_out = "[(1, 1, 0, 0)]"
    assert score("nbbox_iou_tuple", inside_out, "[(-1, -1, 2, 2)]", "sound") == 0


def test_similarity_of_points_falls_by_ten_in_the_exponent_over_a_diagonal():
    near, far = "[(0, 0), (0.5, 0.5)]", "[(0, 0), (0.5, 0.6)]"
    wanted = (1 + math.exp(-10 * 0.1 / math.sqrt(2))) / 2
    assert score("sequence_coords_similarity", far, near) == pytest.approx(wanted, abs=1e-12)


def test_only_sound_sees_that_a_locked_door_stays_shut():
    context = {"domain_pddl": DOMAIN, "task_pddl": PROBLEM}
    assert score("symbolic_planning_test", "(open a)", context) == 1
    assert score("symbolic_planning_test", "(open a)", context, "sound") == 0
    unlocked = context | {"task_pddl": PROBLEM.replace("(locked a)", "")}
    assert score("symbolic_planning_test", "1. (Open A)", unlocked, "sound") == 1
    assert score("symbolic_planning_test", "1. (Open A)", unlocked) == 0
    assert score("symbolic_planning_test", "(lock a)\n(open a)", unlocked, "sound") == 0


def test_latex_is_compared_as_mathematics_and_read_as_far_as_it_goes():
    assert score("latex_expr_equality", "(x+1)^2", "x^2+2x+1") == 1
    assert score("latex_expr_equality", r"\frac{1}{2", "x") == 0
    assert score("latex_expr_equality", "x+1) y", "1+x") == 1
    assert score("latex_expr_equality", "x+1) y", "1+x", "sound") == 0
    assert score("text_with_latex_expr_equality", "so $a+b$.", "so $b+a$") == 1


def test_a_power_that_never_ends_is_unread_and_the_next_comparison_works(monkeypatch):
    from verifiers.megabench import latex_process

    monkeypatch.setattr(latex_process, "CPU_LIMIT_S", 1)
    latex_process._process().stop()
    assert compare_latex("9^{9^{9^{9}}}", "9^{9^{9^{8}}}") == "unread"
    assert compare_latex("a+b", "b+a") == "equal"
    latex_process._process().stop()


def test_gleu_counts_shared_runs_of_words():
    pytest.importorskip("jieba")
    # 我 / 爱: runs 我, 爱, 我爱; against 我 alone: one shared of three
    assert score("gleu_cn", "我爱", "我") == pytest.approx(1 / 3)


def test_bleu_of_a_text_with_itself_is_one():
    assert score("bleu", "the cat sat on the mat", "the cat sat on the mat") == pytest.approx(1)


def test_distances_agree_with_published_ones():
    # Vincenty's own check, Flinders Peak to Buninyong, on GDA94's nearly equal ellipsoid
    flinders, buninyong = (-37.95103341, 144.42486789), (-37.65282114, 143.92649553)
    assert distance_km(flinders, buninyong) == pytest.approx(54.972271, abs=2e-6)
    assert distance_km((0, 0), (0, 0)) == 0
    assert distance_km((0, 0), (0, 180)) == pytest.approx(20003.93, rel=5e-3)


def test_places_come_from_the_users_table_or_are_unscored(tmp_path):
    paris = {"country": "France", "province_or_state": "Ile-de-France", "municipality": "Paris"}
    berlin = {"country": "Germany", "province_or_state": "Berlin", "municipality": "Berlin"}
    name = "geo_proximity_location_dict"
    with pytest.raises(Unscored, match="no table"):
        score(name, paris, berlin)
    assert score(name, paris | {"municipality": ""}, berlin) == 0
    assert score(name, "Paris, France", berlin) == 0
    table = tmp_path / "places.csv"
    table.write_text(
        "country,state,city,latitude,longitude\n"
        "France,Ile-de-France,Paris,48.85,2.35\nGermany,Berlin,Berlin,52.52,13.40\n"
    )
    use_geocoder(read_places(table))
    try:
        assert score(name, paris | {"province_or_state": "x"}, paris) == 1
        far = score(name, paris, berlin)
        assert far == pytest.approx(math.exp(-distance_km((48.85, 2.35), (52.52, 13.40)) / 100))
        assert score(name, paris | {"municipality": "Atlantis"}, berlin) == 0
    finally:
        use_geocoder(None)
    table.write_text("country,city\nFrance,Paris\n")
    with pytest.raises(ValueError, match="row 1"):
        read_places(table)
