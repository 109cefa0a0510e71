import itertools
import runpy
from math import nan
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

import verifiers.adapters.judging as judging
import verifiers.adapters.trl as adapter
from verifiers import VERIFIERS, PoolScoring, ServerScoring, Verdict, Verifier
from verifiers.adapters.judging import Judge
from verifiers.adapters.trl import TrlReward, response_text, source_metrics

HERE = PoolScoring(workers=0)
BOX = "<answer>[{'bbox_2d': [10, 10, 110, 110], 'label': 'cat'}]</answer>"
NEAR = "<answer>[{'bbox_2d': [10, 10, 110, 97], 'label': 'cat'}]</answer>"  # IoU 0.87


def columns(*rows):
    """V-Triune's columns, as TRL hands them over: one list a column."""
    return {
        "data_source": [source for source, _, _ in rows],
        "ability": ["math"] * len(rows),
        "reward_model": [
            {"verifier": verifier, "ground_truth": truth, "accuracy_ratio": 1.0, "answer": None}
            for _, verifier, truth in rows
        ],
        "extra_info": [{"id": str(index)} for index in range(len(rows))],
    }


def test_rows_that_name_their_judge_are_scored_by_it():
    reward = TrlReward(scoring=PoolScoring(workers=1))
    rows = columns(("geo", "mathverify", r"\boxed{0.5}"), ("clevr", "number", "7"))
    given = reward(
        prompts=["", ""],
        completions=[r"\boxed{\frac{1}{2}}", r"\boxed{8}"],
        completion_ids=[[1], [1]],
        **rows,
    )
    assert given == [1.0, 0.0]


def test_chat_completions_are_read_from_the_last_assistant_message():
    chat = [
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": r"\boxed{1}"},
        {"role": "assistant", "content": [{"type": "text", "text": r"\boxed{7}"}]},
    ]
    given = TrlReward(scoring=HERE)(
        prompts=[""], completions=[chat], **columns(("clevr", "number", "7"))
    )
    assert given == [1.0]
    apart = {"role": "assistant", "content": r"\boxed{7}", "reasoning_content": "two and five"}
    assert response_text([apart]) == r"<think>two and five</think>\boxed{7}"
    assert response_text([{"role": "tool", "content": "7"}]) == ""


def test_plain_columns_need_a_judge_and_a_column_with_references():
    reward = TrlReward(
        judge=Judge(verifier="mathverify"), by_source={"b": Judge(verifier="text")}, scoring=HERE
    )
    given = reward(
        prompts=["", "", ""],
        completions=[r"\boxed{2/4}", r"\boxed{2/4}", r"\boxed{1/2}"],
        solution=["1/2", "1/2", "1/2"],
        data_source=["a", "b", "b"],
    )
    assert given == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError, match=r"neither reward_model nor 'answer', but solution"):
        TrlReward(reference_column="answer")(prompts=[""], completions=[""], solution=["1"])


def test_nobody_is_guessed_to_be_the_judge():
    with pytest.raises(ValueError, match=r"batch row 0 \(data_source 'a'\): no verifier is named"):
        TrlReward()(prompts=[""], completions=["7"], solution=["7"], data_source=["a"])
    with pytest.raises(ValueError, match=r"'numbr' is not registered \(did you mean 'number'"):
        Judge(verifier="numbr")
    with pytest.raises(ValueError, match=r"parameter 'tolerance' is unknown"):
        Judge(verifier="mathverify", params={"tolerance": 1})


def test_what_cannot_be_judged_is_none_and_is_counted():
    extra, metrics = {}, {}
    rows = columns(
        ("geo", "mathverify", "7"),
        ("geo", "mathverify", ""),  # no reference
        ("geo", "mathverify", r"\boxed{6}"),
        ("v3det", "nobody", BOX),  # no such verifier
    )
    rows["reward_model"][2]["format_ratio"] = 1.0
    given = TrlReward(scoring=HERE, name="honest")(
        prompts=[""] * 4,
        completions=[r"\boxed{7}", r"\boxed{7}", r"\boxed{7}", BOX],
        log_extra=extra.__setitem__,
        log_metric=metrics.__setitem__,
        **rows,
    )
    assert given == [1.0, None, 0.5, None]  # the third is wrong, but of the right form
    assert extra["honest_status"] == ["ok", "bad_reference", "ok", "bad_reference"]
    assert "'nobody' is not registered" in extra["honest_reason"][3]
    assert metrics == {
        "rewards/honest/geo/reward": 0.75,
        "rewards/honest/geo/accuracy": 0.5,
        "rewards/honest/geo/format": 1.0,
        "rewards/honest/geo/unscored": pytest.approx(1 / 3),
        "rewards/honest/v3det/unscored": 1.0,
    }


def test_a_timeout_is_none(monkeypatch):
    late = Verdict(score=None, status="timeout", reason="no verdict within 2 s")
    monkeypatch.setattr(judging, "score_with", lambda scoring, items, context: [late])
    given = TrlReward()(prompts=[""], completions=["7"], **columns(("geo", "mathverify", "7")))
    assert given == [None]


def test_a_trl_that_makes_a_zero_of_none_is_refused(monkeypatch):
    row = columns(("geo", "mathverify", ""))
    monkeypatch.setattr(adapter, "version", lambda name: "1.5.1")
    with pytest.raises(RuntimeError, match=r"TRL 1\.5\.1 would train on it as a 0; TRL 1\.6"):
        TrlReward(scoring=HERE)(prompts=[""], completions=["7"], **row)
    right = columns(("geo", "mathverify", "7"))
    assert TrlReward(scoring=HERE)(prompts=[""], completions=[r"\boxed{7}"], **right) == [1.0]
    monkeypatch.setattr(adapter, "version", lambda name: "1.6.0")
    assert TrlReward(scoring=HERE)(prompts=[""], completions=["7"], **row) == [None]


def test_servers_are_asked_if_they_are_named(monkeypatch):
    asked = []
    servers = ServerScoring(urls=("http://127.0.0.1:1",))
    monkeypatch.setattr(
        judging,
        "score_with",
        lambda scoring, items, context: asked.append(scoring) or [Verdict.scored(1.0)],
    )
    rows = columns(("geo", "mathverify", "7"))
    assert TrlReward(scoring=servers)(prompts=[""], completions=["7"], **rows) == [None]
    assert asked == [servers]


@pytest.mark.parametrize(
    ("step", "steps", "expected"), [(5, 100, 0.87), (25, 100, 0.0), (0, 0, 0.0)]
)
def test_the_iou_that_counts_follows_the_trainers_steps(step, steps, expected):
    given = TrlReward(scoring=HERE)(
        prompts=[""],
        completions=[NEAR],
        trainer_state=SimpleNamespace(global_step=step, max_steps=steps),
        **columns(("v3det", "detection", BOX)),
    )
    assert given == [pytest.approx(expected)]  # 0.85 up to 10 % of the steps, then 0.95 and 0.99


def test_sources_without_a_score_have_no_mean():
    verdicts = [Verdict.unscored("no reference", status="bad_reference")]
    assert source_metrics(["a"], verdicts) == {"a/unscored": 1.0}


def scores_in_turn(*scores):
    """A verifier that gives these scores, one a response, again and again; None = it fails."""
    turn = itertools.cycle(scores)

    def judge(sample, response, context):
        value = next(turn)
        return Verdict.unscored("it broke") if value is None else Verdict.scored(value)

    return Verifier(judge=judge, check_params=lambda params: None, version="1")


def tiny_tokenizer():
    letters = ["<pad>", "<eos>", *"0123456789?ab"]
    words = Tokenizer(models.WordLevel({x: i for i, x in enumerate(letters)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL uses names transformers renames
def test_trl_trains_and_the_unscored_move_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(VERIFIERS, "turns", scores_in_turn(0.2, None, 0.9, 0.4))
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    rows = columns(("good", "turns", "7"), ("bad", "number", ""))
    trainer = GRPOTrainer(
        LlamaForCausalLM(config),
        reward_funcs=TrlReward(scoring=HERE),
        args=GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=4,
            max_steps=2,
            logging_steps=1,
            scale_rewards="none",  # then an advantage is the reward less the group's mean
            learning_rate=1e-2,
            log_completions=True,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            seed=1,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["1a", "2b"], **rows}),
        processing_class=tokenizer,
    )
    trainer.train()

    log = [entry for entry in trainer.state.log_history if "reward" in entry]
    steps = [pd.read_parquet(path) for path in sorted((tmp_path / "completions").iterdir())]
    assert len(log) == len(steps) == 2
    for entry, step in zip(log, steps, strict=True):
        good, bad = step[step["prompt"] == "1a"], step[step["prompt"] == "2b"]
        assert good["honest_reward"].tolist() == pytest.approx([0.2, nan, 0.9, 0.4], nan_ok=True)
        assert good["advantage"].tolist() == pytest.approx([-0.3, 0.0, 0.4, -0.1])  # mean 0.5
        assert good["honest_reward_status"].tolist() == ["ok", "fault", "ok", "ok"]
        assert bad["honest_reward"].isna().all()
        assert bad["advantage"].tolist() == [0.0] * 4
        assert entry["reward"] == pytest.approx(0.5)
        assert entry["rewards/honest_reward/good/reward"] == pytest.approx(0.5)
        assert entry["rewards/honest_reward/good/unscored"] == 0.25
        assert entry["rewards/honest_reward/bad/unscored"] == 1.0
        assert entry["grad_norm"] > 0


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_example_learns_its_sums(tmp_path):
    path = Path(__file__).parents[1] / "examples" / "trl_reward.py"
    log = runpy.run_path(str(path))["train"](str(tmp_path), steps=40)
    right = [entry["rewards/honest_reward/sums/accuracy"] for entry in log]
    assert right[0] < 0.5 and right[-1] > 0.9
    assert {entry["rewards/honest_reward/bad/unscored"] for entry in log} == {1.0}
