"""The loop of a stage: log, checkpoint, stop, resume to the same numbers bit for bit."""

import json
import signal
from dataclasses import replace

import pytest
import torch
from tiny_vl import corpus_of, judge_by_length, pose, stream_of, tiny_policy

from vl import groups as groups_module
from vl.align import DenseHead, dense_labels
from vl.checkpoint import CheckpointStore
from vl.optim import AdamWConfig, MuonConfig, NonFiniteGradient, Schedule
from vl.parallel import Shards
from vl.rl import RlConfig, RlStage
from vl.rollout import SamplingConfig
from vl.rundir import START, read_metrics
from vl.runlog import RunLog
from vl.sft import AlignConfig, AlignStage, SftConfig, SftStage
from vl.stage import EarlyStop, Interrupted, StageSeconds, run_stage

TIMES = {"time_s", "cpu_s", "seconds/rollout", "seconds/score", "seconds/update", "tokens_per_s"}
OBJECTS = json.dumps([{"bbox_2d": [0, 0, 500, 500], "label": "dog"}])


def caption(sample):
    return ("what is there?", "a dog") if sample.source == "dots" else None


class Counter:
    """A stage without tensors: its state is the sum of its steps."""

    name = "sft"

    def __init__(self, num_steps=6, interrupt_at=None):
        self.num_steps, self.interrupt_at, self.total = num_steps, interrupt_at, 0

    def run_step(self, step):
        self.total += step
        if step == self.interrupt_at:
            signal.raise_signal(signal.SIGINT)
        return {"loss": float(self.total)}

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total = state["total"]


def run(stage, folder, *, resume=False, seen=None, **options):
    store = CheckpointStore(folder / "checkpoints")
    found = store.load() if resume else None
    if found:
        stage.load_state_dict(found.state)
        spent = StageSeconds(cpu_s=found.cpu_s, wall_s=found.wall_s)
        options |= {"start_step": found.position.step, "spent": spent}
    position = (found.position if found else START) if resume else None
    with RunLog(folder, resume_at=position, make_writer=None) as log:
        if not resume:
            log.write_config({})
        return run_stage(
            stage,
            log=log,
            checkpoints=store,
            on_step=lambda *step: None if seen is None else seen.append(step[:3]),
            **options,
        )


def numbers(folder):
    return [
        {name: value for name, value in line.items() if name not in TIMES}
        for line in read_metrics(folder)
    ]


def test_every_step_is_logged_and_shown_once(tmp_path):
    seen = []
    run(Counter(), tmp_path, seen=seen)
    assert seen == [("sft", step, 6) for step in range(1, 7)]
    assert [line["loss"] for line in read_metrics(tmp_path)] == [0, 1, 3, 6, 10, 15]
    assert not (tmp_path / "checkpoints").exists()


def test_checkpoints_come_at_intervals_and_only_the_newest_are_kept(tmp_path):
    run(Counter(num_steps=8), tmp_path, checkpoint_every=2)
    store = CheckpointStore(tmp_path / "checkpoints")
    assert {path.name for path in store.folder.iterdir()} == {"sft-4.pt", "sft-6.pt"}
    found = store.load()
    assert found is not None and found.position == store.position() == ("sft", 6)
    assert found.state == {"total": 15} and found.notes == ()


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_number_that_is_none_stops_the_run_and_keeps_the_checkpoint_before(value, tmp_path):
    class Diverges(Counter):
        def run_step(self, step):
            return super().run_step(step) | ({"reward": value} if step == 4 else {})

    with pytest.raises(EarlyStop, match=f"in step 5 of 6 of stage sft: reward is {value}") as one:
        run(Diverges(), tmp_path, checkpoint_every=2)
    assert "the checkpoint of sft step 4 is kept" in str(one.value)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_a_gradient_that_is_no_number_stops_the_run_before_the_first_checkpoint(tmp_path):
    class Diverges(Counter):
        def run_step(self, step):
            raise NonFiniteGradient("gradient norm is nan")

    with pytest.raises(EarlyStop, match=r"step 1 of 6 .*norm is nan; there is no checkpoint yet"):
        run(Diverges(), tmp_path)


def test_without_a_checkpoint_a_run_resumes_at_its_start(tmp_path):
    store = CheckpointStore(tmp_path)
    assert store.load() is None and store.position() == START


def test_an_interrupt_ends_the_run_after_the_step_with_a_checkpoint(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="stopped after step 3 of 6 of stage sft") as caught:
        run(Counter(interrupt_at=2), tmp_path)
    assert (caught.value.stage, caught.value.step, caught.value.num_steps) == ("sft", 3, 6)
    assert signal.getsignal(signal.SIGINT) is before
    assert CheckpointStore(tmp_path / "checkpoints").position() == ("sft", 3)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    stage = Counter()
    run(stage, tmp_path, resume=True)
    assert stage.total == 15
    assert [line["loss"] for line in read_metrics(tmp_path)] == [0, 1, 3, 6, 10, 15]


def test_a_second_interrupt_ends_it_at_once(tmp_path):
    class Impatient(Counter):
        def run_step(self, step):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("unreachable")

    with pytest.raises(KeyboardInterrupt):
        run(Impatient(), tmp_path)


def test_a_crash_while_saving_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    seconds = StageSeconds(cpu_s=1.0, wall_s=2.0)
    store.save("sft", 2, {"total": 1}, seconds)
    monkeypatch.setattr("vl.atomic.os.replace", lambda *paths: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.save("sft", 4, {"total": 6}, seconds)
    assert store.position() == ("sft", 2)


def test_seconds_go_on_from_those_of_the_checkpoint(tmp_path):
    spent = StageSeconds(cpu_s=100.0, wall_s=1000.0)
    found = run(Counter(), tmp_path, spent=spent)
    assert 100.0 < found.cpu_s < 105.0 and 1000.0 < found.wall_s < 1005.0
    assert 1000.0 < read_metrics(tmp_path)[0]["time_s"] < 1005.0


def make_align(num_steps=4):
    policy, corpus = tiny_policy(), corpus_of(1, 2, 1, objects=OBJECTS)
    head = DenseHead(policy.model.config, dense_labels(corpus.pictures))
    torch.nn.init.zeros_(head.read_out.weight)
    config = AlignConfig(
        num_steps=num_steps, pictures_per_step=2, schedule=Schedule(warmup_steps=2)
    )
    return AlignStage(policy, head, corpus, stream_of(corpus), config, Shards(2))


def make_sft(num_steps=4):
    align, corpus = make_align(), corpus_of(1, 2, 1, objects=OBJECTS)
    config = SftConfig(
        num_steps=num_steps,
        pictures_per_step=2,
        optimizer=MuonConfig(lr=0.02, adamw_lr=1e-2),
        schedule=Schedule(warmup_steps=2),
    )
    return SftStage(
        align.policy, align.head, corpus, align.stream, pose, caption, config, Shards(2)
    )


def make_rl(num_steps=4):
    policy, corpus = tiny_policy(), corpus_of(1, 2, 1)
    config = RlConfig(
        num_steps=num_steps,
        pictures_per_step=2,
        sampling=SamplingConfig(num_rollouts=4, max_new_tokens=6),
        optimizer=AdamWConfig(lr=1e-3),
    )
    return RlStage(policy, corpus, stream_of(corpus), pose, config, Shards(2), seed=1)


@pytest.mark.parametrize("make", [make_align, make_sft, make_rl])
def test_a_resumed_stage_gives_the_same_numbers_bit_for_bit(make, tmp_path, monkeypatch):
    monkeypatch.setattr(groups_module, "score_with", judge_by_length)
    straight, part, rest = make(), make(), make()
    run(straight, tmp_path / "straight")

    run_step = part.run_step

    def interrupted(step):
        if step == 1:
            signal.raise_signal(signal.SIGINT)
        return run_step(step)

    part.run_step = interrupted
    with pytest.raises(Interrupted):
        run(part, tmp_path / "resumed")
    run(rest, tmp_path / "resumed", resume=True)
    assert numbers(tmp_path / "resumed") == numbers(tmp_path / "straight")
    assert len({line["loss"] for line in numbers(tmp_path / "straight")}) == 4
    models = [stage.policy.model.state_dict() for stage in (rest, straight)]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_alignment_trains_the_vision_tower_and_the_head_alone(tmp_path):
    stage = make_align()
    before = {name: p.detach().clone() for name, p in stage.policy.model.named_parameters()}
    run(stage, tmp_path)
    losses = [line["loss"] for line in read_metrics(tmp_path)]
    changed = {n for n, p in stage.policy.model.named_parameters() if not torch.equal(p, before[n])}
    assert {name.split(".")[0] for name in changed} == {"vision_tower"}
    assert losses[-1] < losses[0]


def test_sft_learns_its_rows(tmp_path):
    stage = make_sft(num_steps=30)
    run(stage, tmp_path)
    lines = read_metrics(tmp_path)
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert {"loss", "dense_loss", "lr", "grad_norm"} <= set(lines[0])


def test_sft_counts_captions_as_rows_while_they_last():
    stage = make_sft(num_steps=4)
    stage.sft = replace(stage.sft, caption_frac=0.5)
    draws = stage.stream(0)
    batch = [next(draws) for _ in range(2)]  # one row of dots, two of words
    assert [q.owner for q in stage._rows(batch, 1).questions] == [0, 0, 1, 1]
    assert [q.owner for q in stage._rows(batch, 2).questions] == [0, 1, 1]
    assert stage._rows(batch, 1).questions[1].text == "what is there?"
    assert stage._rows(batch, 1).answers[1] == stage.policy.encode_answer("a dog")
