"""Policy losses, by hand: which weight each token gets, and what is clipped."""

import pytest
import torch

from vl.losses import CispoConfig, GrpoConfig, dapo_config, policy_loss


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
