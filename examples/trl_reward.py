"""GRPO in TRL with honest rewards: a made-up model of 5,800 weights learns two sums.

Run it as `python examples/trl_reward.py`; it needs `pip install vl-triune trl torch`.
"""

from __future__ import annotations

import logging
import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
)
from trl import GRPOConfig, GRPOTrainer

from verifiers import PoolScoring
from verifiers.adapters.trl import TrlReward

# V-Triune's columns: each row names its judge. The last one has no reference; nobody can judge it.
ROWS = [
    {
        "prompt": prompt,
        "data_source": source,
        "reward_model": {"verifier": "number", "ground_truth": truth, "accuracy_ratio": 1.0},
    }
    for prompt, source, truth in (("3+4=", "sums", "7"), ("1+2=", "sums", "3"), ("2+?=", "bad", ""))
]


def tiny_model() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Random weights; a token is a character or an answer in its box."""
    letters = ["<pad>", "<eos>", r"\boxed{7}", r"\boxed{3}", r"\boxed{1}", *"0123456789+=?"]
    words = Tokenizer(models.WordLevel({x: i for i, x in enumerate(letters)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(letters),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config), tokenizer


def train(folder: str, steps: int = 60) -> list[dict[str, float]]:
    """What TRL logged at each step."""
    model, tokenizer = tiny_model()
    trainer = GRPOTrainer(
        model,
        reward_funcs=TrlReward(scoring=PoolScoring(workers=1)),
        args=GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=48,
            num_generations=16,
            max_completion_length=1,
            max_steps=steps,
            learning_rate=2e-2,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)  # the two lines below say enough here
    trainer.train()
    return [entry for entry in trainer.state.log_history if "reward" in entry]


if __name__ == "__main__":
    logging.getLogger("trl").setLevel(logging.ERROR)  # TRL prints a row that nobody could judge
    with tempfile.TemporaryDirectory() as folder:
        log = train(folder)
    for entry in (log[0], log[-1]):
        sums, bad = (f"rewards/honest_reward/{source}/" for source in ("sums", "bad"))
        print(
            f"step {entry['step']}: sums right {entry[sums + 'accuracy']:.2f}, "
            f"unscored {entry[sums + 'unscored']:.2f}; bad unscored {entry[bad + 'unscored']:.2f}"
        )
