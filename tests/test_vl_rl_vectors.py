"""The numbers of `cases/rl_vectors.json`: losses with gradients, advantages, KL, weights, stops.

Each case says in `verified_against` whose own code gave the same numbers.
"""

import json
from pathlib import Path

import pytest
import torch

from verifiers import StagedIou
from vl.advantages import AdvantageConfig, group_advantages
from vl.dynamic_sampling import DynamicSampling, Judged, SamplingPlan
from vl.kl import KlConfig, kl_estimate
from vl.losses import (
    CispoConfig,
    ConstantLength,
    GrpoConfig,
    GspoConfig,
    SequenceMean,
    TokenMean,
    cispo_config,
    policy_loss,
)
from vl.rollout_correction import RolloutCorrection, rollout_correction
from vl.stops import RepetitionStop, repetition_stop

CASES = json.loads((Path(__file__).parent / "cases" / "rl_vectors.json").read_text())["cases"]


def of_kind(*kinds):
    return pytest.mark.parametrize(
        "case", [pytest.param(c, id=c["id"]) for c in CASES if c["kind"] in kinds]
    )


def tensor(values, **options):
    return torch.tensor(values, dtype=torch.float64, **options)


def close(found, expected):
    torch.testing.assert_close(found, tensor(expected), rtol=1e-6, atol=1e-8)


def groups_of(values, groups):
    """Values by group, in order of the group's number."""
    return [
        [v for v, g in zip(values, groups, strict=True) if g == group]
        for group in sorted(set(groups))
    ]


def config_of(case):
    params = case["params"]
    aggregation = {
        "token-mean": lambda: TokenMean(),
        "seq-mean-token-mean": lambda: SequenceMean(),
        "seq-mean-token-sum-norm": lambda: ConstantLength(divisor_tokens=params["length_scale"]),
    }[params["aggregation"]]()
    if case["algorithm"] == "gspo":
        low, high = 1.0 - params["eps_low"], 1.0 + params["eps_high"]
        return GspoConfig(ratio_low=low, ratio_high=high, aggregation=aggregation)
    bounds = {"ratio_low": params["ratio_low"], "ratio_high": params["ratio_high"]}
    if case["algorithm"] == "cispo":
        return CispoConfig(**bounds, aggregation=aggregation)
    kl = None
    if params.get("kl_estimator"):
        kl = KlConfig(coefficient=params["kl_coef"], estimator=params["kl_estimator"])
    dual_clip = params.get("dual_clip")
    return GrpoConfig(**bounds, dual_clip=dual_clip, aggregation=aggregation, kl=kl)


def loss_of(case, logprobs):
    inputs, params = case["inputs"], case["params"]
    reference = inputs.get("logp_ref")
    return policy_loss(
        logprobs,
        tensor(inputs["logp_old"]),
        tensor(inputs["advantages"]),
        tensor(inputs["mask"]).bool(),
        config_of(case),
        tokens_in_step=params.get("token_normalizer") and int(params["token_normalizer"]),
        reference_logprobs=None if reference is None else tensor(reference),
    )


@of_kind("policy_loss")
def test_a_policy_loss_has_the_value_and_gradient_of_its_case(case):
    logprobs = tensor(case["inputs"]["logp_new"], requires_grad=True)
    found = loss_of(case, logprobs)
    found.loss.backward()
    close(found.loss.detach(), case["expected"]["loss"])
    close(logprobs.grad, case["expected"]["grad_logp_new"])
    share = case["expected"].get("clip_fraction")
    if share is not None and case["params"]["token_normalizer"] is None:
        assert found.clip_fraction.item() == pytest.approx(share)


@of_kind("policy_loss_from_logits")
def test_a_policy_loss_from_logits_takes_them_at_the_sampling_temperature(case):
    logits = tensor(case["inputs"]["logits"], requires_grad=True)
    every = torch.log_softmax(logits / case["params"]["temperature"], dim=-1)
    tokens = torch.tensor(case["inputs"]["tokens"])
    logprobs = every.gather(-1, tokens[..., None])[..., 0]
    found = loss_of(case, logprobs)
    found.loss.backward()
    close(logprobs.detach(), case["expected"]["logp_new"])
    close(found.loss.detach(), case["expected"]["loss"])
    close(logits.grad, case["expected"]["grad_logits"])


@of_kind("policy_loss")
def test_margins_of_the_paper_give_the_bounds_of_the_case(case):
    params = case["params"]
    if case["algorithm"] != "cispo":
        return
    found = cispo_config(eps_low=params["eps_low"], eps_high=params["eps_high"])
    assert found.ratio_high == pytest.approx(params["ratio_high"])
    assert found.ratio_low == (
        params["ratio_low"] if params["ratio_low"] is None else pytest.approx(params["ratio_low"])
    )


@of_kind("group_advantage")
def test_group_advantages_are_those_of_the_case(case):
    params, groups = case["params"], case["inputs"]["groups"]
    config = AdvantageConfig(
        divide_by_std=params["divide_by_std"], std_epsilon=params["eps"], ddof=params["ddof"]
    )
    expected = groups_of(case["expected"]["advantages"], groups)
    for rewards, values in zip(groups_of(case["inputs"]["rewards"], groups), expected, strict=True):
        assert group_advantages(rewards, config).advantages == pytest.approx(values, rel=1e-6)


@of_kind("group_filter")
def test_dynamic_sampling_keeps_the_groups_of_the_case(case):
    groups = groups_of(case["inputs"]["rewards"], case["inputs"]["groups"])
    plan = SamplingPlan(len(groups), DynamicSampling())
    judged = [Judged("one", group_advantages(group).has_spread, len(group)) for group in groups]
    plan.feed(range(len(groups)), judged)
    assert plan.kept == case["expected"]["kept_groups"]


@of_kind("kl_estimator")
def test_a_kl_estimate_has_the_value_and_gradient_of_its_case(case):
    logprobs = tensor(case["inputs"]["logp"], requires_grad=True)
    found = kl_estimate(logprobs, tensor(case["inputs"]["logp_ref"]), case["params"]["estimator"])
    found.sum().backward()
    close(found.detach(), case["expected"]["kl"])
    close(logprobs.grad, case["expected"]["grad_of_sum"])


@of_kind("rollout_correction")
def test_rollout_correction_gives_the_weights_of_the_case(case):
    params = case["params"]
    level, action = params["mode"].split("_")
    config = RolloutCorrection(
        level=level, action=action, ratio_low=params.get("lower"), ratio_high=params["upper"]
    )
    inputs = (tensor(case["inputs"][name]) for name in ("logp_train", "logp_rollout"))
    found = rollout_correction(*inputs, tensor(case["inputs"]["mask"]).bool(), config)
    close(found, case["expected"]["weights"])


@of_kind("repetition_stop")
def test_repetition_stops_where_the_case_says(case):
    runs, params = case["inputs"]["probability_runs"], case["params"]
    probabilities = [probability for probability, length in runs for _ in range(length)]
    rule = RepetitionStop(num_tokens=params["window"], probability=params["threshold"])
    assert repetition_stop(probabilities, rule) == case["expected"]["stop_after_tokens"]


@of_kind("threshold_schedule")
def test_the_staged_iou_is_that_of_the_case(case):
    rule = StagedIou(tuple(map(tuple, case["params"]["stages"])))
    steps, totals = case["inputs"]["steps"], case["inputs"]["totals"]
    found = [rule.thresholds(step / total)[0] for step, total in zip(steps, totals, strict=True)]
    assert found == case["expected"]["threshold"]


def test_every_case_is_looked_at():
    kinds = {"policy_loss", "policy_loss_from_logits", "group_advantage", "group_filter"}
    kinds |= {"kl_estimator", "rollout_correction", "repetition_stop", "threshold_schedule"}
    assert {case["kind"] for case in CASES} == kinds
