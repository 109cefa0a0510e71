"""One RL step: gradients of plain rows, unscored rollouts left out and counted, frozen parts."""

from dataclasses import replace

import pytest
import torch
from tiny_vl import corpus_of, judge_by_length, pose, stream_of, tiny_policy

from verifiers import FixedIou, PoolScoring, StagedIou, Verdict
from vl import groups as groups_module
from vl.dynamic_sampling import DynamicSampling
from vl.losses import CispoConfig, GrpoConfig
from vl.optim import AdamWConfig
from vl.overlong import OverlongPenalty
from vl.parallel import Shards
from vl.rl import RlConfig, RlStage, TooManyUnscored
from vl.rollout import SamplingConfig
from vl.rollout_correction import RolloutCorrection
from vl.sft import Draw


def make(*rows_per_picture, stream=None, judge=None, monkeypatch=None, **options):
    policy, corpus = tiny_policy(), corpus_of(*(rows_per_picture or (1, 2, 1)))
    settings = {
        "num_steps": 4,
        "pictures_per_step": 3,
        "sampling": SamplingConfig(num_rollouts=4, max_new_tokens=6),
        "optimizer": AdamWConfig(lr=1e-3),
    }
    config = RlConfig(**(settings | options))
    return RlStage(policy, corpus, stream or stream_of(corpus), pose, config, Shards(2), seed=1)


@pytest.fixture(autouse=True)
def judge(monkeypatch):
    monkeypatch.setattr(groups_module, "score_with", judge_by_length)


def judge_all(monkeypatch, verdict_of):
    def score_with(scoring, items, context):
        return [
            verdict_of(number, verdict)
            for number, verdict in enumerate(judge_by_length(scoring, items, context))
        ]

    monkeypatch.setattr(groups_module, "score_with", score_with)


def captured_gradients(stage, step=0):
    """The step's groups and the gradients that reach the optimizer."""
    seen = []

    def take(max_grad_norm):
        params = stage.policy.model.named_parameters()
        seen.append({n: None if p.grad is None else p.grad.clone() for n, p in params})
        stage.optimizers.zero_grad()
        return 0.0

    stage.optimizers.step = take
    values = stage.run_step(step)
    return values, seen


def plain_loss(stage, groups, weight_of):
    """Token-mean policy-gradient loss over plain rows, without any shared prefix."""
    policy, text = stage.policy, stage.policy.text
    image = [policy.model.config.image_token_index] * 4
    total, tokens = torch.zeros(()), 0
    for group in groups:
        shown = [stage.corpus.pictures[group.picture_index].images[0].open()]
        pixels = policy.processor.image_processor(shown)["pixel_values"]
        for rollout, advantage in zip(group.rollouts, group.advantages, strict=True):
            if advantage is None:
                continue
            tokens += len(rollout.token_ids)
            ids = [*text.opening, *image, *text.prompt(group.prompt), *text.header]
            row = torch.tensor([[*ids, *rollout.token_ids]])
            logits = policy.model(row, pixel_values=pixels).logits[0, len(ids) - 1 : -1]
            every = policy_masked(policy, logits).log_softmax(-1)
            chosen = every.gather(-1, torch.tensor(rollout.token_ids)[:, None])[:, 0]
            total = total - (weight_of(chosen, rollout) * advantage * chosen).sum()
    return total / tokens


def policy_masked(policy, logits):
    return logits.masked_fill(policy.forbidden, float("-inf"))


def assert_gradients(stage, found, loss):
    params = dict(stage.policy.model.named_parameters())
    trained = {name: param for name, param in params.items() if param.requires_grad}
    expected = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    for name, gradient in zip(trained, expected, strict=True):
        assert (found[name] is None) == (gradient is None), name
        if gradient is not None:
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    assert max(g.abs().max().item() for g in expected if g is not None) > 1e-3


@pytest.mark.parametrize("rows_per_picture", [(2, 2, 2), (1, 3, 1)], ids=["equal", "unequal"])
@pytest.mark.parametrize("frozen", [("vit", "connector"), ()])
def test_the_update_has_the_gradient_of_plain_rows(rows_per_picture, frozen):
    stage = make(*rows_per_picture, frozen_parts=frozen)
    values, seen = captured_gradients(stage)
    loss = plain_loss(stage, stage.last_groups, lambda chosen, rollout: 1.0)
    assert len(seen) == 1
    assert_gradients(stage, seen[0], loss)
    assert values["loss"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    assert values["rollout_match/max_difference"] < 1e-5


def test_off_policy_the_weights_are_those_of_the_ratio(monkeypatch):
    stage = make(loss=CispoConfig(ratio_high=1.1))
    groups = None
    original = RlStage._sample

    def sample_then_move(self, *step):
        rollouts = original(self, *step)
        with torch.no_grad():
            self.policy.model.language_model.lm_head.weight.mul_(1.5)
        return rollouts

    monkeypatch.setattr(RlStage, "_sample", sample_then_move)
    values, seen = captured_gradients(stage)
    groups = stage.last_groups

    def weight_of(chosen, rollout):
        sampled = torch.tensor(rollout.logprobs)
        return (chosen.detach() - sampled).exp().clamp(max=1.1)

    assert_gradients(stage, seen[0], plain_loss(stage, groups, weight_of))
    assert 0.0 < values["clip_fraction"] < 1.0 and values["rollout_match/max_difference"] > 1e-4


def test_unscored_rollouts_are_left_out_and_counted(monkeypatch):
    unscored = Verdict.unscored("reference does not parse", status="bad_reference")
    judge_all(monkeypatch, lambda i, verdict: unscored if i in (0, 5) else verdict)
    stage = make()
    values, seen = captured_gradients(stage)
    groups = stage.last_groups
    assert [g.advantages.count(None) for g in groups] == [1, 1, 0, 0]
    assert values["unscored"] == 2.0 and values["source/dots/unscored"] == 1.0
    assert_gradients(stage, seen[0], plain_loss(stage, groups, lambda chosen, rollout: 1.0))
    scores = [v.score for g in groups for v in g.verdicts if v.score is not None]
    assert len(scores) == 14 and values["score"] == pytest.approx(sum(scores) / 14)


def test_a_step_with_too_many_unscored_rollouts_stops_the_run(monkeypatch):
    unscored = Verdict.unscored("took 9 s", status="timeout")
    judge_all(monkeypatch, lambda i, verdict: unscored if i < 4 else verdict)
    with pytest.raises(TooManyUnscored, match="4 of 16 rollouts are unscored") as caught:
        make(max_unscored_frac=0.2).run_step(0)
    assert "timeout: took 9 s" in str(caught.value) and "vl data check" in str(caught.value)
    make(max_unscored_frac=0.25).run_step(0)


def test_frozen_parts_stay_and_the_others_move():
    stage = make(frozen_parts=("vit",))
    before = {name: p.detach().clone() for name, p in stage.policy.model.named_parameters()}
    stage.run_step(1)
    after = dict(stage.policy.model.named_parameters())
    changed = {name for name, value in before.items() if not torch.equal(after[name], value)}
    parts = {name.split(".")[0] for name in changed}
    assert parts == {"language_model", "multi_modal_projector"}
    assert "language_model.lm_head.weight" in changed


def test_without_spread_nothing_moves_and_nothing_unmeasured_is_logged(monkeypatch):
    judge_all(monkeypatch, lambda i, verdict: replace(verdict, score=1.0, reward=1.0))
    stage = make()
    before = {name: p.detach().clone() for name, p in stage.policy.model.named_parameters()}
    values = stage.run_step(0)
    after = dict(stage.policy.model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert values["loss"] == 0.0 and values["no_spread"] == 1.0
    assert not {"grad_norm", "entropy", "clip_fraction"} & set(values)


def test_an_update_without_spread_does_not_dilute_the_numbers_of_the_others(monkeypatch):
    """Two updates, of which the second has no spread: the gradient's norm is the first's."""
    judge_all(
        monkeypatch,
        lambda i, v: replace(v, score=float(i % 2 or i > 3), reward=float(i % 2 or i > 3)),
    )
    stage = make(1, 1, pictures_per_step=2, updates_per_rollout=2)
    norms = []
    step = stage.optimizers.step
    stage.optimizers.step = lambda limit: norms.append(step(limit)) or norms[-1]
    values = stage.run_step(0)
    assert len(norms) == 1 and values["grad_norm"] == norms[0] > 0


def test_a_picture_drawn_twice_in_a_row_is_one_prefix():
    corpus = corpus_of(1, 2)

    def stream(start):
        del start
        for picture in (0, 1, 1, 0):
            yield Draw(0, corpus.pictures[picture])

    stage = make(1, 2, stream=stream, pictures_per_step=4)
    _, seen = captured_gradients(stage)
    assert [g.picture_index for g in stage.last_groups] == [0, 1, 1, 1, 1, 0]
    loss = plain_loss(stage, stage.last_groups, lambda chosen, rollout: 1.0)
    assert_gradients(stage, seen[0], loss)


def test_progress_and_iou_rule_reach_the_judge(monkeypatch):
    seen = []

    def score_with(scoring, items, context):
        seen.append((context.progress, context.iou_rule, scoring.workers))
        return judge_by_length(scoring, items, context)

    monkeypatch.setattr(groups_module, "score_with", score_with)
    make(iou_rule=FixedIou(0.5)).run_step(3)
    make(scoring=PoolScoring(workers=2)).run_step(0)
    assert seen == [(0.75, FixedIou(0.5), 1), (0.0, StagedIou(), 2)]


@pytest.mark.parametrize("loss", [CispoConfig(), GrpoConfig()])
def test_metrics_come_by_source_and_task_and_are_numbers(loss):
    stage = make(loss=loss)
    for step in range(4):
        values = stage.run_step(step)
        assert all(value == value and abs(value) < float("inf") for value in values.values())
    names = {
        "reward",
        "score",
        "no_spread",
        "response_length",
        "pass_at_g",
        "truncated",
        "unscored",
    }
    for prefix in ("", "source/dots/", "source/words/", "task/counting/"):
        assert {prefix + name for name in names} <= set(values)
    assert {"lr", "loss", "tokens_per_s", "seconds/rollout", "seconds/update"} <= set(values)
    assert "iou" not in values  # no box was judged


def test_seed_and_step_decide_the_rollouts():
    def drawn(seed, step):
        stage = make(1)
        stage.seed = seed
        draws = [Draw(0, stage.corpus.pictures[0])]
        return stage._sample(draws, step)

    assert drawn(1, 0) == drawn(1, 0)
    assert drawn(1, 0) != drawn(1, 1) and drawn(1, 0) != drawn(2, 0)


def test_features_of_frozen_pictures_are_computed_once(monkeypatch):
    stage = make()
    calls = []
    features = type(stage.policy).features
    monkeypatch.setattr(
        type(stage.policy), "features", lambda self, p: calls.append(len(p)) or features(self, p)
    )
    first = stage.sight.features([0, 2, 0])
    again = stage.sight.features([2, 1])
    assert calls == [1, 1, 1]  # each alone
    assert first[1] is again[0] and first[0] is first[2]


@pytest.mark.parametrize("options", [{"pictures_per_micro_batch": 1}, {"prefix_sharing": False}])
def test_how_the_update_is_cut_or_shared_does_not_change_its_gradient(options):
    whole, seen = captured_gradients(make(1, 3, 2, 1, pictures_per_step=4))
    cut, again = captured_gradients(make(1, 3, 2, 1, pictures_per_step=4, **options))
    for name, gradient in seen[0].items():
        assert (gradient is None) == (again[0][name] is None)
        if gradient is not None:
            torch.testing.assert_close(again[0][name], gradient, rtol=1e-4, atol=1e-6)
    for name in ("loss", "entropy", "clip_fraction"):
        assert cut[name] == pytest.approx(whole[name], rel=1e-4, abs=1e-6)


def test_a_rollout_correction_weighs_by_the_ratio_of_the_steps_start_to_the_sampler(monkeypatch):
    """The sampler claims other log-probs than ours: a token weighs exp(ours - its), at most 2."""
    original = RlStage._sample

    def shifted(self, *step):
        generator = torch.Generator().manual_seed(0)
        asked = original(self, *step)
        for one in asked:
            for number, rollout in enumerate(one.rollouts):
                noise = torch.randn(len(rollout.logprobs), generator=generator).tolist()
                told = tuple(p + n for p, n in zip(rollout.logprobs, noise, strict=True))
                one.rollouts[number] = replace(rollout, logprobs=told)
        return asked

    monkeypatch.setattr(RlStage, "_sample", shifted)
    stage = make(rollout_correction=RolloutCorrection(ratio_high=2.0))
    values, seen = captured_gradients(stage)

    def weight_of(chosen, rollout):
        return (chosen.detach() - torch.tensor(rollout.logprobs)).exp().clamp(max=2.0)

    assert_gradients(stage, seen[0], plain_loss(stage, stage.last_groups, weight_of))
    assert values["clip_fraction"] == 0.0  # the loss's own ratio is 1: nothing has moved yet


def test_several_passes_over_a_batch_are_several_optimizer_steps(monkeypatch):
    judge_all(monkeypatch, lambda i, v: replace(v, score=float(i % 2), reward=float(i % 2)))
    stage = make(epochs_per_rollout=3, updates_per_rollout=2, pictures_per_step=2)
    steps = []
    step = stage.optimizers.step
    stage.optimizers.step = lambda limit: steps.append(step(limit)) or steps[-1]
    stage.run_step(0)
    assert len(steps) == 6


def test_pictures_are_shared_out_evenly_over_the_updates(monkeypatch):
    """Five pictures in four updates are four updates, not three of two, two and one."""
    judge_all(monkeypatch, lambda i, v: replace(v, score=float(i % 2), reward=float(i % 2)))
    stage = make(1, 1, 1, 1, 1, updates_per_rollout=4, pictures_per_step=5)
    steps = []
    step = stage.optimizers.step
    stage.optimizers.step = lambda limit: steps.append(step(limit)) or steps[-1]
    stage.run_step(0)
    assert len(steps) == 4


def test_a_step_that_finds_no_group_with_spread_changes_nothing(monkeypatch):
    judge_all(monkeypatch, lambda i, v: replace(v, score=1.0, reward=1.0))
    stage = make(dynamic_sampling=DynamicSampling(max_extra_batches=1), updates_per_rollout=2)
    before = [param.detach().clone() for param in stage.policy.model.parameters()]
    values = stage.run_step(0)
    assert values["loss"] == 0.0 and values["sampling/kept"] == 0.0
    assert all(map(torch.equal, before, stage.policy.model.parameters()))


def test_groups_without_spread_are_replaced_and_a_resumed_stage_draws_the_same(monkeypatch):
    """The first of three groups has no spread: a picture behind the run's takes its place."""
    judge_all(
        monkeypatch,
        lambda i, v: replace(v, score=float(i % 2 and i > 3), reward=float(i % 2 and i > 3)),
    )
    options = {"dynamic_sampling": DynamicSampling(max_extra_batches=2), "num_steps": 2}
    stage = make(1, 1, 1, 1, 1, 1, 1, pictures_per_step=3, **options)
    values = stage.run_step(0)
    # pictures 0, 1, 2; then 6 and 0 of the next epoch (position 2 * 3 on): the first group of each
    # call has no spread, so that a second call is needed
    assert (
        values["sampling/drawn"]
        == values["sampling/kept"] + values["sampling/no_spread"] + (values["sampling/surplus"])
    )
    assert values["sampling/kept"] == 3.0 and values["sampling/missing"] == 0.0
    assert [g.picture_index for g in stage.last_groups][:2] == [1, 2]
    assert all(group.has_spread for group in stage.last_groups)
    assert stage.num_extra_pictures == values["sampling/drawn"] - 3
    resumed = make(1, 1, 1, 1, 1, 1, 1, pictures_per_step=3, **options)
    resumed.load_state_dict(stage.state_dict())
    again = resumed.run_step(1)
    straight = stage.run_step(1)
    same = {name for name in again if "seconds" not in name and name != "tokens_per_s"}
    assert {name: again[name] for name in same} == {name: straight[name] for name in same}


def test_long_rollouts_lose_reward_before_they_are_compared(monkeypatch):
    judge_all(monkeypatch, lambda i, verdict: replace(verdict, score=1.0, reward=1.0))
    stage = make(overlong=OverlongPenalty(max_tokens=6, margin_tokens=6))
    values = stage.run_step(0)
    for group in stage.last_groups:
        lengths = [len(rollout.token_ids) for rollout in group.rollouts]
        if len(set(lengths)) > 1:
            ranked = sorted(zip(lengths, group.advantages, strict=True))
            assert ranked[0][1] > 0 > ranked[-1][1]
    lengths = [len(r.token_ids) for g in stage.last_groups for r in g.rollouts]
    assert values["overlong"] == pytest.approx(-sum(lengths) / len(lengths) / 6)
    assert values["reward"] == 1.0


def test_an_update_that_disagrees_with_its_sampling_raises_an_alarm(monkeypatch):
    original = RlStage._sample

    def sample_then_move(self, *step):
        asked = original(self, *step)
        with torch.no_grad():
            self.policy.model.language_model.lm_head.weight.mul_(-3.0)
        return asked

    healthy = make()
    healthy.run_step(0)
    assert healthy.alarms == []
    monkeypatch.setattr(RlStage, "_sample", sample_then_move)
    stage = make()
    values = stage.run_step(0)
    assert values["rollout_match/correlation"] < 0.99
    assert len(stage.alarms) == 1 and "rl step 1: token probabilities" in stage.alarms[0]
