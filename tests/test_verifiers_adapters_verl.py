"""The first part needs no verl; the second runs verl's own code: `make test-adapters`."""

import asyncio
import pickle
import shlex
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset

import verifiers.adapters.judging as judging
from data_specs import DataSpecError
from verifiers import ServerScoring, Verdict
from verifiers.adapters.verl import UnscoredError, compute_score, compute_score_batch, with_judge

BOX = "<answer>[{'bbox_2d': [10, 10, 110, 110], 'label': 'cat'}]</answer>"
NEAR = "<answer>[{'bbox_2d': [10, 10, 110, 97], 'label': 'cat'}]</answer>"  # IoU 0.87
HERE = {"workers": 0}
MATH = {"workers": 0, "verifier": "mathverify"}
KEYS = {"score", "accuracy", "format", "status", "reason"}


def needs_verl(test):
    """Skipped without verl; what verl, Ray and others warn of is not ours."""
    reason = "verl is not installed here; `make test-adapters` runs this"
    skipped = pytest.mark.skipif(not find_spec("verl"), reason=reason)
    return skipped(pytest.mark.filterwarnings("ignore")(test))


def orsta_row(**reward_model):
    return {
        "data_source": "v3det",
        "ability": "detection",
        "prompt": [{"role": "user", "content": "Where is the cat?"}],
        "reward_model": {
            "verifier": "detection",
            "ground_truth": BOX,
            "answer": BOX,
            "accuracy_ratio": 0.75,
            "format_ratio": 0.25,
            "verifier_parm": {"iou_threshold": 0.5, "det_verifier_normalized": None},
        }
        | reward_model,
        "extra_info": {"id": "v3det_7", "image_path": None},
    }


def test_a_response_is_judged_in_a_process_of_its_own():
    result = compute_score("geo", r"so \boxed{\frac{1}{2}}", "0.5", {}, verifier="mathverify")
    assert set(result) == KEYS
    assert (result["score"], result["accuracy"], result["status"]) == (1.0, 1.0, "ok")


def test_the_judge_travels_in_extra_info():
    row = orsta_row()
    extra = with_judge(row)["extra_info"]
    assert extra["id"] == "v3det_7"
    assert extra["reward_model"]["verifier_parm"] == (
        '{"iou_threshold": 0.5, "det_verifier_normalized": null}'
    )
    result = compute_score("v3det", NEAR, BOX, extra, parts=["iou", "map50", "words"], **HERE)
    assert result["accuracy"] == pytest.approx(0.87)
    assert result["score"] == pytest.approx(0.75 * 0.87 + 0.25)
    assert (result["map50"], result["words"]) == (1.0, None)
    flat = {"verifier": "detection", "verifier_parm": '{"iou_threshold": 0.9}'}
    assert compute_score("v3det", NEAR, BOX, flat, **HERE)["score"] == 0.0


def test_with_judge_prepares_a_mixed_data_set():
    math = orsta_row(verifier="mathverify", ground_truth="7", verifier_parm=None, format_ratio=0.0)
    rows = Dataset.from_list([orsta_row(), math | {"data_source": "geo"}]).map(with_judge)
    scores = [
        compute_score(
            row["data_source"],
            response,
            row["reward_model"]["ground_truth"],
            row["extra_info"],
            **HERE,
        )["score"]
        for row, response in zip(rows, (NEAR, r"\boxed{7.0}"), strict=True)
    ]
    assert scores == [pytest.approx(0.75 * 0.87 + 0.25), 1.0]


def test_with_judge_refuses_a_row_that_cannot_be_judged():
    with pytest.raises(DataSpecError, match=r"id v3det_7\): verifier 'detecton' is not registered"):
        with_judge(orsta_row(verifier="detecton"))
    with pytest.raises(ValueError, match="no verifier is named"):
        with_judge(orsta_row(verifier=None, verifier_parm=None))


def test_settings_name_the_judge_of_rows_that_do_not():
    by_source = {"ocr": {"verifier": "text", "format_ratio": 1.0}}
    kwargs = {**MATH, "by_source": by_source}
    assert compute_score("geo", r"\boxed{2/4}", "1/2", None, **kwargs)["score"] == 1.0
    assert compute_score("ocr", r"\boxed{2/4}", "1/2", None, **kwargs)["score"] == 0.5
    own = {"verifier": "number"}
    assert compute_score("ocr", r"\boxed{7.0}", "7", own, **kwargs)["score"] == 1.0


def test_nobody_is_guessed_to_be_the_judge():
    with pytest.raises(ValueError, match=r"row 4 \(data_source 'geo'\): no verifier is named"):
        compute_score("geo", "7", "7", {"index": 4}, by_source={"ocr": {"verifier": "text"}})
    with pytest.raises(ValueError, match="it has format_ratio, which mean nothing without one"):
        compute_score("geo", "7", "7", {"format_ratio": 0.5}, **MATH)
    with pytest.raises(ValueError, match=r"'verifer' \(did you mean 'verifier'\?\)"):
        compute_score("geo", "7", "7", {}, verifer="mathverify")
    with pytest.raises(ValueError, match="params or weights but no verifier that they are for"):
        compute_score("geo", "7", "7", {"verifier": "number"}, format_ratio=0.1)
    with pytest.raises(ValueError, match=r"by_source\['geo'\] has verifer; allowed: verifier"):
        compute_score("geo", "7", "7", {}, by_source={"geo": {"verifer": "text"}})


def test_what_cannot_be_judged_is_an_error_and_never_a_number(monkeypatch):
    with pytest.raises(UnscoredError, match=r"1 of 1 .* unscored.*'geo', id 'a'.*reference"):
        compute_score("geo", r"\boxed{7}", "", {"id": "a"}, **MATH)
    with pytest.raises(UnscoredError, match="ground_truth is 7; allowed: a text"):
        compute_score("geo", r"\boxed{7}", 7, {}, **MATH)
    with pytest.raises(UnscoredError, match="2 of 3 responses unscored") as caught:
        compute_score_batch(["geo"] * 3, [r"\boxed{7}"] * 3, ["", "7", ""], **MATH)
    copy = pickle.loads(pickle.dumps(caught.value))  # Ray sends it to another process
    assert str(copy) == str(caught.value)
    assert [verdict.status for verdict in copy.verdicts] == ["bad_reference"] * 2

    late = Verdict(score=None, status="timeout", reason="no verdict within 2 s")
    monkeypatch.setattr(judging, "score_with", lambda scoring, items, context: [late])
    with pytest.raises(UnscoredError, match="timeout: no verdict within 2 s"):
        compute_score("geo", r"\boxed{7}", "7", {}, **MATH)


@pytest.mark.parametrize(
    ("extra", "kwargs", "expected"),
    [
        ({}, {}, 0.87 * 0.8),  # of COCO's ten thresholds, 0.50 to 0.85 are reached
        ({}, {"iou_rule": 0.85}, 0.87),
        ({}, {"iou_rule": 0.9}, 0.0),
        ({}, {"progress": 0.1}, 0.87),  # staged: 0.85 up to 10 % of the steps
        ({}, {"progress": 0.2}, 0.0),
        ({"global_steps": 5}, {"total_steps": 100}, 0.87),
        ({"global_steps": 11, "total_steps": 100}, {"iou_rule": "staged"}, 0.0),
        ({"global_steps": 11, "total_steps": 100}, {"iou_rule": "average"}, 0.87 * 0.8),
    ],
)
def test_the_iou_that_counts_is_named_or_follows_progress(extra, kwargs, expected):
    result = compute_score("v3det", NEAR, BOX, extra, verifier="detection", **kwargs, **HERE)
    assert result["score"] == pytest.approx(expected)


def test_a_staged_rule_needs_a_progress():
    with pytest.raises(ValueError, match="'staged' needs the progress, which verl does not hand"):
        compute_score("v3det", NEAR, BOX, {}, verifier="detection", iou_rule="staged", **HERE)
    with pytest.raises(ValueError, match="iou_rule is 'strict'; allowed: 'average', 'staged'"):
        compute_score("v3det", NEAR, BOX, {}, verifier="detection", iou_rule="strict", **HERE)


def test_servers_are_asked_if_they_are_named(monkeypatch):
    asked = []
    monkeypatch.setattr(
        judging,
        "score_with",
        lambda scoring, items, context: (
            asked.append(scoring) or [Verdict(score=1.0, reward=1.0) for _ in items]
        ),
    )
    kwargs = {"verifier": "mathverify", "urls": ["http://127.0.0.1:1"], "token_file": "t"}
    assert compute_score("geo", "7", "7", {}, **kwargs)["score"] == 1.0
    assert asked == [ServerScoring(urls=("http://127.0.0.1:1",), token_file="t")]


# From here on: verl's own code.

RIGHT, WRONG = r"\boxed{72}", r"\boxed{71}"


class Letters:
    """A tokenizer whose tokens are code points."""

    eos_token = "\x00"

    def decode(self, ids, skip_special_tokens=True):
        return "".join(chr(int(token)) for token in ids if int(token))


def config(manager="naive", function="compute_score", **kwargs):
    from omegaconf import OmegaConf

    hook = {"path": "pkg://verifiers.adapters.verl", "name": function, "reward_kwargs": kwargs}
    return OmegaConf.create(
        {
            "reward": {
                "custom_reward_function": hook,
                "reward_manager": {"source": "register", "name": manager},
                "num_workers": 1,
            },
            "trainer": {"experiment_name": "x"},
        }
    )


def batch(*rows):
    """(response, ground truth) pairs as verl's DataProto, right-padded."""
    import numpy as np
    import torch
    from tensordict import TensorDict
    from verl import DataProto

    def padded(response, value):
        return [value or ord(char) for char in response] + [0] * (32 - len(response))

    tensors = {
        "prompts": torch.tensor([[81, 63]] * len(rows)),
        "responses": torch.tensor([padded(response, 0) for response, _ in rows]),
        "attention_mask": torch.tensor([[1, 1, *padded(response, 1)] for response, _ in rows]),
    }
    columns = {
        "data_source": ["gsm8k"] * len(rows),
        "reward_model": [{"ground_truth": truth, "style": "rule"} for _, truth in rows],
        "extra_info": [{"index": index} for index in range(len(rows))],
    }
    return DataProto(
        batch=TensorDict(tensors, batch_size=len(rows)),
        non_tensor_batch={name: np.array(values, dtype=object) for name, values in columns.items()},
    )


def run_single(manager, data):
    from verl.trainer.ppo.reward import load_reward_manager

    async def run():
        kwargs = {"by_source": {"gsm8k": {"verifier": "mathverify"}}, "workers": 1}
        return await load_reward_manager(config(manager, **kwargs), Letters()).run_single(data)

    return asyncio.run(run())


@needs_verl
def test_the_command_in_the_docs_is_one_verl_understands():
    from hydra import compose, initialize_config_module
    from verl.trainer.ppo.reward import get_custom_reward_fn

    page = (Path(__file__).parents[1] / "docs" / "verifiers" / "adapters.md").read_text()
    command = page.split("```bash\n")[1].split("```")[0]
    words = shlex.split(command.replace("\\\n", " "))
    overrides = words[words.index("...") + 1 :]
    with initialize_config_module("verl.trainer.config", version_base=None):
        function = get_custom_reward_fn(compose("ppo_trainer", overrides=overrides))
    rows = (("geo", r"\boxed{2/4}", "1/2"), ("ocr", r"\boxed{colas}", "cola"), ("s", NEAR, BOX))
    judges = ({}, {}, {"verifier": "detection"})
    scores = [
        function(data_source=source, solution_str=response, ground_truth=truth, extra_info=extra)
        for (source, response, truth), extra in zip(rows, judges, strict=True)
    ]
    assert [result["score"] for result in scores] == pytest.approx([1.0, 0.8, 0.87])


@needs_verl
@pytest.mark.parametrize("manager", ["naive", "dapo", "gdpo", "rate_limited"])
def test_verls_reward_managers_take_the_reward(manager):
    for response, reward in ((RIGHT, 1.0), (WRONG, 0.0)):
        result = run_single(manager, batch((response, "72")))
        assert result["reward_score"] == reward
        assert result["reward_extra_info"]["score"] == reward
        assert set(result["reward_extra_info"]) == KEYS


@needs_verl
@pytest.mark.parametrize("manager", ["naive", "dapo", "gdpo"])
def test_verls_reward_managers_let_the_unscored_through_as_an_error(manager):
    with pytest.raises(UnscoredError, match="bad_reference"):
        run_single(manager, batch((RIGHT, "")))


@needs_verl
def test_verls_remote_manager_scores_inside_a_ray_actor():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert run_single("remote", batch((RIGHT, "72")))["reward_score"] == 1.0
        with pytest.raises(UnscoredError, match="bad_reference"):
            run_single("remote", batch((RIGHT, "")))
    finally:
        ray.shutdown()


@needs_verl
def test_verls_rate_limited_manager_makes_a_zero_of_any_error():
    """Why the docs say not to use it."""
    result = run_single("rate_limited", batch((RIGHT, "")))
    assert result["reward_score"] == 0.0
    assert "bad_reference" in result["reward_extra_info"]["error"]


@needs_verl
@pytest.mark.parametrize(
    ("manager", "function"),
    [("naive", "compute_score"), ("dapo", "compute_score"), ("batch", "compute_score_batch")],
)
def test_verls_older_managers_take_the_reward(manager, function):
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.workers.reward_manager import get_reward_manager_cls

    scores = get_custom_reward_fn(config(function=function, **MATH))
    reward = get_reward_manager_cls(manager)(Letters(), num_examine=0, compute_score=scores)
    result = reward(batch((RIGHT, "72"), (WRONG, "72")), return_dict=True)
    assert result["reward_tensor"].sum(dim=1).tolist() == [1.0, 0.0]
    assert result["reward_tensor"][0, len(RIGHT) - 1] == 1.0
    assert result["reward_extra_info"]["accuracy"] == [1.0, 0.0]
    with pytest.raises(UnscoredError, match="bad_reference"):
        reward(batch((RIGHT, "72"), (WRONG, "")), return_dict=True)


@needs_verl
def test_verls_trainer_drops_the_unscored_rollout_and_keeps_its_group(monkeypatch):
    import verl.trainer.ppo.v1.agent_loop_tq as agent_loop
    import verl.trainer.ppo.v1.replay_buffer as replay_buffer

    queue = defaultdict(dict)

    async def put(key, partition_id, tag):
        queue[partition_id].setdefault(key, {"is_prompt": True, "global_steps": 1}).update(tag)

    async def roll_out(params, *, session_id, uid, **_):
        """Of four rollouts the second cannot be judged."""
        if session_id == 1:
            raise UnscoredError("no verdict")
        queue["train"][f"{uid}_{session_id}_0"] = {"status": "success"}

    fake = SimpleNamespace(
        async_kv_put=put, kv_list=lambda: queue, kv_clear=lambda partition_id, keys: None
    )
    monkeypatch.setattr(agent_loop, "tq", fake)
    monkeypatch.setattr(replay_buffer, "tq", fake)
    worker = agent_loop.AgentLoopWorkerTQ.__ray_metadata__.modified_class
    rollout = SimpleNamespace(n=4)
    this = SimpleNamespace(
        config=SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=rollout)),
        _run_agent_loop=roll_out,
    )
    asyncio.run(worker._run_prompt(this, {"uid": "row"}, {}, {"validate": False}))
    assert queue["train"]["row"]["status"] == "failure"

    buffer = replay_buffer.ReplayBuffer("sync", {}, None, "drop", {}, poll_interval=0.0)
    kept, _ = buffer.sample(global_steps=1, partition_id="train", batch_size=1)
    assert sorted(kept.keys) == ["row_0_0", "row_2_0", "row_3_0"]


@needs_verl
def test_verls_validation_counts_the_unscored_as_wrong_only_under_the_key_acc():
    from verl.trainer.ppo.metric_utils import process_validation_metrics

    expected = {("gsm8k", "row"): 2}  # two rollouts, of which one was judged, as right

    def metrics(info):
        columns = {name: [value] for name, value in info.items()}
        return process_validation_metrics(
            ["gsm8k"], ["row"], columns, expected_acc_counts=expected
        )["gsm8k"]

    ours = metrics(compute_score("gsm8k", RIGHT, "72", {}, **MATH))
    assert ours["score"] == ours["accuracy"] == {"mean@1": 1.0}
    assert "acc" not in ours
    assert metrics({"acc": 1.0})["acc"]["mean@2"] == 0.5


@needs_verl
def test_a_nan_would_spoil_the_whole_group_in_verl():
    """Why there is no option to return one."""
    import numpy as np
    import torch
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    rewards = torch.tensor([[1.0], [float("nan")], [0.0]])
    advantages, _ = compute_grpo_outcome_advantage(
        rewards, torch.ones(3, 1), np.array(["row"] * 3, dtype=object)
    )
    assert advantages.isnan().all()
