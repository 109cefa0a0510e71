import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verifiers_cases import BOX, make

from data_specs import read_samples, sample_from_row, sample_to_row, write_samples
from verifiers import Verdict, check_spec, score, score_batch, score_many
from verifiers.composite import WEIGHT_MAX
from verifiers.number import MISS_MAX

PROPERTY = settings(max_examples=100, deadline=None, derandomize=True)
SHAPED = {"verifier": "number", "params": {"shaping": "relative"}}


def row(ground_truth, *parts):
    return make("composite", ground_truth, parts=list(parts))


def test_the_score_is_the_weighted_mean_and_the_parts_are_named():
    sample = row(
        r"\boxed{8}",
        {"verifier": "number", "weight": 0.7},
        {"verifier": "text", "weight": 0.1, "params": {"metric": "cer"}},
        {"verifier": "choice", "weight": 0.2, "ground_truth": r"\boxed{six}"},
    )
    verdict = score(sample, r"\boxed{8.0}")
    assert verdict.score == pytest.approx(0.7)  # exact as a number, not as text, nor as a choice
    assert verdict.parts == {"number": 1.0, "text": 0.0, "text_exact": 0.0, "choice": 0.0}
    assert verdict.reason.startswith("text: '8.0' against '8': cer; choice: '8.0'")


def test_a_verifier_that_stands_twice_is_numbered():
    verdict = score(row(r"\boxed{8}", {"verifier": "number"}, SHAPED), r"\boxed{7}")
    assert verdict.score == 0.4375  # (0 + 7/8) / 2
    assert verdict.parts == {"0_number": 0.0, "1_number": 0.875, "1_number_exact": 0.0}


def test_the_format_is_the_mean_of_those_that_exist(monkeypatch):
    sample = row(r"\boxed{8}", {"verifier": "number", "weight": 3}, {"verifier": "text"})
    assert score(sample, r"\boxed{8}").format == 1.0
    monkeypatch.setattr(
        "verifiers.scoring.score_many",
        lambda items, context: [
            Verdict(score=1.0, format=form) for form in (0.5, None, 1.0)[: len(items)]
        ],
    )
    three = row(r"\boxed{8}", {"verifier": "number", "weight": 3}, SHAPED, {"verifier": "text"})
    assert score(three, "x").format == pytest.approx((3 * 0.5 + 1.0) / 4)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (None, "parameter parts is None; allowed: a list of"),
        ([], "parameter parts is []"),
        (["number"], "parts[0] is 'number'; allowed: an object"),
        ([{"weight": 1}], "parts[0].verifier is None"),
        ([{"verifier": "composite", "params": {"parts": []}}], "put its parts here instead"),
        ([{"verifier": "number"}, {"verifier": "numbr"}], "parts[1]: verifier 'numbr' is not"),
        ([{"verifier": "number", "weight": 0}], "weight is 0; allowed: above 0"),
        ([{"verifier": "number", "weight": -1}], "weight is -1; allowed: a number from 0"),
        ([{"verifier": "number", "weight": "1"}], "weight is '1'"),
        ([{"verifier": "number", "weight": float("nan")}], "weight is nan"),
        ([{"verifier": "number", "weight": float("inf")}], "weight is inf"),
        ([{"verifier": "number", "wieght": 1}], "parts[0].wieght is unknown; allowed: verifier"),
        ([{"verifier": "number", "ground_truth": 7}], "ground_truth is 7; allowed: a text"),
        ([{"verifier": "number", "params": [1]}], "params is [1]; allowed: an object"),
        (
            [{"verifier": "text", "params": {"metric": "bleu"}}],
            "parts[0]: verifier text: parameter",
        ),
    ],
)
def test_wrong_parts_are_the_rows_fault_and_never_a_zero(parts, said):
    sample = make("composite", r"\boxed{8}", parts=parts)
    assert said in check_spec(sample.reward)
    if "bleu" not in said + str(parts):
        verdict = score(sample, r"\boxed{8}")
        assert (verdict.score, verdict.reward) == (None, None) and verdict.status == "bad_reference"


def test_an_unknown_parameter_is_named():
    assert "'part' is unknown; allowed: parts" in check_spec(make("composite", "x", part=[]).reward)


def test_one_unscored_part_leaves_the_row_unscored():
    sample = row(r"\boxed{8}", {"verifier": "number"}, {"verifier": "detection"})
    verdict = score(sample, r"\boxed{8}")
    assert (verdict.score, verdict.status) == (None, "bad_reference")
    assert verdict.reason.startswith("detection: ")


def test_a_fault_of_a_part_is_a_fault_of_the_row_alone(monkeypatch):
    from verifiers import registry

    def broken(sample, response, context):
        raise RuntimeError("no judge today")

    fields = {"check_params": lambda params: None, "version": "1"}
    faulty = registry.Verifier(judge=broken, **fields)
    monkeypatch.setitem(registry.VERIFIERS, "faulty", faulty)
    bad = row(r"\boxed{8}", {"verifier": "number"}, {"verifier": "faulty"})
    good = row(r"\boxed{8}", {"verifier": "number"})
    for verdicts in (
        [score(bad, r"\boxed{8}"), score(good, r"\boxed{8}")],
        score_many([(bad, r"\boxed{8}"), (good, r"\boxed{8}")]),
    ):
        assert [v.status for v in verdicts] == ["fault", "ok"]
        assert [v.score for v in verdicts] == [None, 1.0]
        assert "faulty: verifier failed: RuntimeError: no judge today" in verdicts[0].reason


WEIGHTS = st.floats(1e-6, WEIGHT_MAX)


@PROPERTY
@given(st.lists(st.tuples(WEIGHTS, st.booleans()), min_size=1, max_size=6))
def test_the_score_is_1_only_if_every_part_is_right(parts):
    sample = row(
        r"\boxed{8}",
        *(
            {"verifier": "number", "weight": weight}
            | ({} if right else {"ground_truth": r"\boxed{9}"})
            for weight, right in parts
        ),
    )
    value = score(sample, r"\boxed{8}").score
    total = sum(weight for weight, _ in parts)
    expected = sum(weight for weight, right in parts if right) / total
    assert value == pytest.approx(expected, abs=2e-6) and 0.0 <= value <= 1.0
    assert (value == 1.0) == all(right for _, right in parts)


def test_a_weight_that_rounding_loses_still_counts():
    wrong = {"verifier": "number", "weight": 1e-300, "ground_truth": r"\boxed{9}"}
    assert score(row(r"\boxed{8}", {"verifier": "number"}, wrong), r"\boxed{8}").score == MISS_MAX


def test_the_row_weighs_the_whole():
    sample = row(BOX, {"verifier": "detection", "weight": 0.5}, {"verifier": "text", "weight": 0.5})
    sample = sample_from_row(sample_to_row(sample))
    assert score(sample, BOX).reward == 1.0
    spaced = BOX.replace("[10, 10", "[10,  10")
    assert score(sample, spaced).score == 1.0  # spaces do not count as text either
    assert score(sample, BOX.replace("10, 10", "10, 11")).score == pytest.approx(0.5, abs=0.5)


def test_a_batch_gives_what_one_by_one_gives():
    good = row(r"\boxed{8}", {"verifier": "number"}, SHAPED)
    boxes = row(BOX, {"verifier": "detection"})
    wrong = make("composite", r"\boxed{8}", parts=[])
    items = [
        (good, r"\boxed{7}"),
        (boxes, BOX),
        (wrong, r"\boxed{8}"),
        (good, ""),
        (make("number", r"\boxed{8}"), r"\boxed{8}"),
        (boxes, BOX.replace("90, 90", "80, 90")),
    ]
    assert score_many(items) == [score(*item) for item in items] == score_batch(items)


def test_parts_survive_parquet(tmp_path):
    parts = [{"verifier": "number", "weight": 0.5, "params": {"relative_tolerance": 0.05}}, SHAPED]
    path = tmp_path / "rows.parquet"
    write_samples([row(r"\boxed{8}", *parts)], path)
    (sample,) = read_samples([path])
    assert json.loads(json.dumps(dict(sample.reward.params))) == {"parts": parts}
    # V-Triune's own files hold structs: every part then has every field, null where not given
    nulls = {"ground_truth": None, "params": {"relative_tolerance": None, "shaping": "relative"}}
    holed = make("composite", r"\boxed{8}", parts=[SHAPED | nulls | {"weight": None}])
    assert check_spec(holed.reward) is None and score(holed, r"\boxed{7}").score == 0.875
