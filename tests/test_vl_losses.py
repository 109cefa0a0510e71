"""Policy losses, by hand: which weight each token gets, and what is clipped."""

import pytest
import torch

from vl.kl import KlConfig, kl_estimate
from vl.losses import (
    CispoConfig,
    ConstantLength,
    GrpoConfig,
    GspoConfig,
    SequenceMean,
    dapo_config,
    dr_grpo_config,
    effective_range,
    grpo_config,
    policy_loss,
)
from vl.rollout_correction import RolloutCorrection, rollout_correction


def ratios(values, sampled=0.5):
    """Current and sampled log-probs whose ratios are `values`; the current ones need a gradient."""
    old = torch.full((len(values), len(values[0])), sampled, dtype=torch.float64).log()
    new = (old + torch.tensor(values, dtype=torch.float64).log()).requires_grad_()
    return new, old


def loss_and_gradient(values, advantages, config, trained=None, tokens_in_step=None):
    new, old = ratios(values)
    trained = torch.ones_like(new, dtype=torch.bool) if trained is None else torch.tensor(trained)
    advantages = torch.tensor(advantages, dtype=torch.float64)
    found = policy_loss(new, old, advantages, trained, config, tokens_in_step=tokens_in_step)
    found.loss.backward()
    return found, new.grad


def close(found, expected):
    torch.testing.assert_close(
        found, torch.as_tensor(expected, dtype=found.dtype), rtol=1e-6, atol=1e-9
    )


def test_cispo_gradient_is_the_clipped_weight_times_the_advantage():
    sampled = torch.tensor([[0.5, 0.10], [0.50, 0.5]]).log()
    current = torch.tensor([[0.5, 0.90], [0.25, 0.5]]).log().requires_grad_()
    trained = torch.tensor([[True, True], [True, False]])  # the last token is padding
    advantages = torch.tensor([1.0, -2.0])
    found = policy_loss(current, sampled, advantages, trained, CispoConfig(ratio_high=5.0))
    found.loss.backward()
    expected = torch.tensor([[-1.0, -5.0], [1.0, 0.0]]) / 3  # weights 1, 9 -> 5, 0.5; three tokens
    torch.testing.assert_close(current.grad, expected)
    value = -(1 * 1 * current[0, 0] + 5 * 1 * current[0, 1] - 0.5 * 2 * current[1, 0]) / 3
    torch.testing.assert_close(found.loss, value)
    assert found.clip_fraction.item() == pytest.approx(1 / 3)


def test_cispo_caps_whatever_the_sign_and_leaves_the_lower_side_open_by_default():
    _, gradient = loss_and_gradient([[9.0, 0.01]], [-1.0], CispoConfig())
    close(gradient, [[5.0 / 2, 0.01 / 2]])
    _, gradient = loss_and_gradient([[9.0, 0.01]], [-1.0], CispoConfig(ratio_low=0.5))
    close(gradient, [[5.0 / 2, 0.5 / 2]])
    _, gradient = loss_and_gradient([[9.0, 0.01]], [-1.0], CispoConfig(ratio_high=None))
    close(gradient, [[9.0 / 2, 0.01 / 2]])


def test_grpo_clips_a_side_only_where_going_on_would_pay():
    # A > 0: 1.5 is clipped, 0.5 is not; A < 0: 0.5 is clipped, 1.5 is not
    found, gradient = loss_and_gradient([[1.5, 0.5], [0.5, 1.5]], [1.0, -1.0], GrpoConfig())
    close(gradient, torch.tensor([[0.0, -0.5], [0.0, 1.5]]) / 4)
    close(found.loss, (-1.2 - 0.5 + 0.8 + 1.5) / 4)
    assert found.clip_fraction.item() == pytest.approx(2 / 4)


def test_dual_clip_bounds_negative_advantages_alone():
    config = GrpoConfig(dual_clip=3.0)
    found, gradient = loss_and_gradient([[4.0, 2.0], [4.0, 0.9]], [-1.0, 1.0], config)
    close(gradient, torch.tensor([[0.0, 2.0], [0.0, -0.9]]) / 4)
    close(found.loss, (3.0 + 2.0 - 1.2 - 0.9) / 4)


def test_dapo_opens_the_upper_side():
    assert (dapo_config().ratio_low, dapo_config().ratio_high) == (0.8, 1.28)
    for config, kept in ((dapo_config(), True), (GrpoConfig(), False)):
        _, gradient = loss_and_gradient([[1.25]], [1.0], config)
        assert bool(gradient.any()) == kept


def test_on_policy_all_losses_have_the_same_gradient():
    gradients = [
        loss_and_gradient([[1.0, 1.0], [1.0, 1.0]], [0.3, -2.0], config)[1]
        for config in (CispoConfig(), GrpoConfig(), dapo_config(), GrpoConfig(dual_clip=3.0))
    ]
    for gradient in gradients:
        close(gradient, [[-0.075, -0.075], [0.5, 0.5]])


@pytest.mark.parametrize("config", [CispoConfig(), GrpoConfig()])
def test_shares_of_micro_batches_add_up_to_the_whole_step(config):
    values, advantages = [[1.5, 0.5, 1.0], [0.9, 7.0, 1.0]], [1.0, -0.5]
    trained = [[True, True, False], [True, True, True]]
    whole, gradient = loss_and_gradient(values, advantages, config, trained)
    parts = [
        loss_and_gradient([values[i]], [advantages[i]], config, [trained[i]], tokens_in_step=5)
        for i in range(2)
    ]
    close(sum(part.loss for part, _ in parts), whole.loss)
    close(sum(part.clip_fraction for part, _ in parts), whole.clip_fraction)
    close(torch.cat([g for _, g in parts]), gradient)


def test_a_batch_without_trained_tokens_has_loss_and_gradient_zero():
    found, gradient = loss_and_gradient([[2.0]], [1.0], CispoConfig(), [[False]])
    assert (found.loss.item(), found.clip_fraction.item(), gradient.item()) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("advantage", [1.0, 0.0, -1.0])
@pytest.mark.parametrize(
    "config", [CispoConfig(), CispoConfig(ratio_high=None), GrpoConfig(), GrpoConfig(dual_clip=3.0)]
)
def test_extreme_ratios_give_finite_numbers(config, advantage):
    new = torch.tensor([[-0.001, -200.0]], requires_grad=True)
    old = torch.tensor([[-200.0, -0.001]])
    trained = torch.ones(1, 2, dtype=torch.bool)
    found = policy_loss(new, old, torch.tensor([advantage]), trained, config)
    found.loss.backward()
    assert bool(torch.isfinite(found.loss)) and bool(torch.isfinite(new.grad).all())


@pytest.mark.parametrize("kind", [CispoConfig, GrpoConfig])
@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"ratio_low": 1.1}, "ratio_low: found 1.1; bounds are ratios, not margins"),
        ({"ratio_low": -0.2}, "ratio_low: found -0.2"),
        ({"ratio_high": 0.28}, "ratio_high: found 0.28; bounds are ratios, not margins"),
    ],
)
def test_bounds_that_would_clip_on_policy_are_refused(kind, bounds, message):
    with pytest.raises(ValueError, match=message):
        kind(**bounds)


def test_a_dual_clip_of_one_or_less_is_refused():
    with pytest.raises(ValueError, match=r"dual_clip: found 1\.0; it must be above 1"):
        GrpoConfig(dual_clip=1.0)


LONG_AND_SHORT = [[True, True, True, False], [True, False, False, False]]


@pytest.mark.parametrize(
    ("aggregation", "weights"),
    [
        (None, [1 / 4, 1 / 4]),  # four tokens
        (SequenceMean(), [1 / 6, 1 / 2]),  # a third, and all, of one of two rollouts
        (ConstantLength(divisor_tokens=8), [1 / 16, 1 / 16]),
    ],
)
def test_an_aggregation_decides_what_a_token_of_a_long_rollout_weighs(aggregation, weights):
    config = GrpoConfig() if aggregation is None else GrpoConfig(aggregation=aggregation)
    ones = [[1.0] * 4] * 2
    found, gradient = loss_and_gradient(ones, [1.0, -2.0], config, LONG_AND_SHORT)
    close(gradient[0, :3], [-weights[0]] * 3)
    close(gradient[1, 0], 2 * weights[1])
    assert not gradient[0, 3] and not gradient[1, 1:].any()
    close(found.loss, -3 * weights[0] + 2 * weights[1])


@pytest.mark.parametrize("config", [grpo_config(), dr_grpo_config(8), GspoConfig()])
def test_shares_of_sequences_add_up_and_an_empty_rollout_does_not_count(config):
    values, advantages = [[1.1, 0.9], [0.7, 1.0], [1.0, 1.0]], [1.0, -0.5, 4.0]
    trained = [[True, True], [True, False], [False, False]]
    whole, gradient = loss_and_gradient(values, advantages, config, trained)
    shares = []
    for i in range(3):
        new, old = ratios([values[i]])
        mask = torch.tensor([trained[i]])
        share = policy_loss(
            new, old, torch.tensor([advantages[i]]), mask, config,
            tokens_in_step=3, sequences_in_step=2,
        )  # fmt: skip
        share.loss.backward()
        shares.append((share.loss, new.grad))
    close(sum(loss for loss, _ in shares), whole.loss.detach())
    close(torch.cat([g for _, g in shares]), gradient)
    assert not gradient[2].any()


def test_gspo_cuts_whole_sequences_by_the_geometric_mean_of_their_ratios():
    # sqrt(2 * 0.5) = 1 is inside whatever its tokens do; sqrt(2 * 2) = 2 is cut where A > 0
    values = [[2.0, 0.5], [2.0, 2.0], [2.0, 2.0]]
    found, gradient = loss_and_gradient(values, [1.0, 1.0, -1.0], GspoConfig())
    close(gradient, [[-1 / 6, -1 / 6], [0.0, 0.0], [2 / 6, 2 / 6]])
    assert found.clip_fraction.item() == pytest.approx(2 / 6)


def test_cispo_masks_tokens_that_would_leave_the_trust_region_eq_7():
    config = CispoConfig(ratio_high=None, mask_low=0.8, mask_high=1.2)
    found, gradient = loss_and_gradient([[1.5, 0.5], [1.5, 0.5]], [1.0, -1.0], config)
    close(gradient, torch.tensor([[0.0, -0.5], [1.5, 0.0]]) / 4)
    shares = (found.clip_fraction, found.clip_fraction_positive, found.clip_fraction_negative)
    assert [share.item() for share in shares] == [0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("estimator", "values", "slopes"),
    [  # d = logp_ref - logp = -0.5, 1
        ("k1", [0.5, -1.0], [1.0, 1.0]),
        ("k2", [0.125, 0.5], [0.5, -1.0]),
        ("k3", [0.1065306597, 0.7182818285], [0.3934693403, -1.7182818285]),
    ],
)
def test_kl_estimates_by_hand(estimator, values, slopes):
    logprobs = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    found = kl_estimate(logprobs, torch.tensor([-1.5, -1.0], dtype=torch.float64), estimator)
    found.sum().backward()
    close(found.detach(), values)
    close(logprobs.grad, slopes)


def test_a_kl_penalty_enters_every_token_and_needs_its_reference():
    new, old = ratios([[1.0, 1.0]])
    reference = new.detach() + 1.0  # d = 1: k2 = 0.5, slope -1
    config = GrpoConfig(kl=KlConfig(coefficient=0.1, estimator="k2"))
    trained, zero = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, dtype=torch.float64)
    found = policy_loss(new, old, zero, trained, config, reference_logprobs=reference)
    found.loss.backward()
    close(found.loss.detach(), 0.05)
    close(found.kl, 0.5)
    close(new.grad, [[-0.05, -0.05]])
    for wrong in ({"config": config}, {"config": CispoConfig(), "reference_logprobs": reference}):
        with pytest.raises(ValueError, match="give both or neither"):
            policy_loss(new, old, zero, trained, **wrong)


def test_a_penalty_that_cannot_hold_anything_back_is_refused():
    with pytest.raises(ValueError, match="gradient of k1 has mean zero"):
        KlConfig(estimator="k1")
    with pytest.raises(ValueError, match=r"coefficient: found 0\.0"):
        KlConfig(coefficient=0.0)
    with pytest.raises(ValueError, match="divisor_tokens: found 0"):
        ConstantLength(divisor_tokens=0)


@pytest.mark.parametrize(
    ("config", "expected"),
    [  # token ratios 4, 1, 0.5 and 0.25; products 2 and 0.25; geometric means 1.26 and 0.25
        (RolloutCorrection(), [[2.0, 1.0, 0.5], [0.25, 0.0, 0.0]]),
        (RolloutCorrection(action="mask"), [[0.0, 1.0, 0.5], [0.25, 0.0, 0.0]]),
        (RolloutCorrection(level="sequence", ratio_high=1.5), [[1.5] * 3, [0.25, 0.0, 0.0]]),
        (RolloutCorrection(level="sequence", action="mask", ratio_low=0.5), [[2.0] * 3, [0.0] * 3]),
        (
            RolloutCorrection(level="geometric", action="mask", ratio_low=0.5),
            [[1.0] * 3, [0.0] * 3],
        ),
        (RolloutCorrection(level="geometric", ratio_low=0.5), [[2 ** (1 / 3)] * 3, [0.5, 0, 0]]),
    ],
)
def test_rollout_correction_by_hand(config, expected):
    rollout = torch.full((2, 3), 0.1, dtype=torch.float64).log()
    gaps = torch.tensor([[4.0, 1.0, 0.5], [0.25, 9.0, 9.0]], dtype=torch.float64).log()
    trained = torch.tensor([[True, True, True], [True, False, False]])
    train = (rollout + gaps).requires_grad_()
    found = rollout_correction(train, rollout, trained, config)
    close(found, expected)
    assert not found.requires_grad


def test_rollout_weights_multiply_the_loss_of_their_tokens():
    new, old = ratios([[1.0, 1.0]])
    weights = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    trained, one = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, dtype=torch.float64)
    policy_loss(new, old, one, trained, CispoConfig(), rollout_weights=weights).loss.backward()
    close(new.grad, [[-0.25, 0.0]])


def test_correction_bounds_are_ratios():
    for wrong in ({"ratio_high": 0.5}, {"ratio_low": 1.5}, {"ratio_low": -0.1}):
        with pytest.raises(ValueError, match="they are ratios"):
            RolloutCorrection(**wrong)


def test_the_effective_range_is_said_in_words():
    assert effective_range(CispoConfig()) == (
        "CISPO: importance weights in [0, 5], every token keeps its gradient"
    )
    assert "up to 1.28 (A > 0) and down to 0.8 (A < 0)" in effective_range(dapo_config())
