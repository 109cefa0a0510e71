"""One update of TRL's GRPOTrainer and ours, from TRL's own rollouts: the same loss and gradient."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from tiny_hf import picture, tiny
from trl import GRPOConfig, GRPOTrainer

from vl.losses import CispoConfig, dapo_config, grpo_config, policy_loss
from vl.policy import Question

TEXTS = ("how many?", "what is the word?")


class Watched(GRPOTrainer):
    """Keeps what its loss is computed from, its value and its gradient."""

    seen = None

    def compute_loss(self, model, inputs, *args, **kwargs):
        before = copy.deepcopy(model)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        params = [p for p in model.parameters() if p.requires_grad]
        grads = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
        self.seen = before, inputs, loss.detach(), grads
        return loss


def trl_step(loss_type, folder):
    policy = tiny("qwen25")
    config = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=6,
        num_generations=3,
        max_completion_length=7,
        temperature=1.0,
        loss_type=loss_type,
        epsilon=0.2,
        epsilon_high=5.0 if loss_type == "cispo" else 0.28,
        beta=0.0,
        learning_rate=1e-3,
        max_steps=1,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    rows = {
        "prompt": [[{"role": "user", "content": text}] for text in TEXTS],
        "image": [picture(0), picture(1)],
    }
    trainer = Watched(
        model=policy.model,
        reward_funcs=lambda completions, **_: [len(set(c[0]["content"])) / 9 for c in completions],
        args=config,
        train_dataset=Dataset.from_dict(rows),
        processing_class=policy.render.processor,
    )
    trainer.train()
    return policy, trainer.seen


@pytest.mark.filterwarnings("ignore")  # TRL's and datasets' own
@pytest.mark.parametrize(
    ("loss_type", "ours"),
    [("cispo", CispoConfig()), ("dapo", dapo_config()), ("grpo", grpo_config())],
)
def test_the_update_is_trls(loss_type, ours, tmp_path):
    policy, (model, inputs, loss, grads) = trl_step(loss_type, tmp_path)
    ids, mask = inputs["completion_ids"], inputs["completion_mask"].bool()
    answers = [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]
    assert min(map(len, answers)) > 0 and inputs["advantages"].abs().max() > 0.1
    tokenizer = policy.render.tokenizer
    prompts = tokenizer.batch_decode(inputs["prompt_ids"])
    asked = [next(n for n, text in enumerate(TEXTS) if text in prompt) for prompt in prompts]
    # TRL normalises over all tokens, ours leaves the picture marks out
    mine = replace(type(policy).load(model.eval(), policy.render.processor), forbidden=())
    features = mine.features([mine.encode([picture(n)]) for n in (0, 1)])
    questions = [Question(owner=n, text=text) for n, text in enumerate(TEXTS)]
    scores = mine.score(mine.read(features, questions), asked, answers)
    found = policy_loss(
        scores.logprobs, scores.logprobs.detach(), inputs["advantages"], scores.valid, ours
    )
    params = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(found.loss, params, allow_unused=True)
    assert found.loss.item() == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    largest = max(g.abs().max().item() for g in grads if g is not None)
    for theirs, own in zip(grads, expected, strict=True):
        if theirs is not None and own is not None:
            assert (theirs - own).abs().max().item() < 2e-5 * largest
    assert largest > 1e-3
