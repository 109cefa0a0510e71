"""Two processes of `accelerate launch` come to the numbers of one; what one process owns."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from launched_run import run
from torch import nn

from vl import processes as processes_module
from vl.parallel import Shards
from vl.processes import ALONE, Processes

ROOT = Path(__file__).parents[1]


def results(out, rank=0):
    return {
        name: json.loads((out / f"{name}-{rank}" / "result.json").read_text())
        for name in ("sft", "rl")
    }


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Both stages in two processes that talk through gloo."""
    out = tmp_path_factory.mktemp("launched")
    # --multi_gpu is how accelerate starts several processes at all; without a GPU they use gloo
    words = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    words += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    words += ["--num_cpu_threads_per_process", "1"]
    program = [sys.executable, "-m", "accelerate.commands.launch", *words]
    found = subprocess.run(
        [*program, str(ROOT / "tests" / "launched_run.py"), str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return out


def test_two_processes_have_the_loss_curve_of_one(launched, tmp_path):
    run(tmp_path)
    alone, two = results(tmp_path), results(launched)
    for name in ("sft", "rl"):
        assert (alone[name]["size"], two[name]["size"]) == (1, 2)
        assert len(alone[name]["lines"]) == 3
        for found, expected in zip(two[name]["lines"], alone[name]["lines"], strict=True):
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                if not key.startswith(("time_s", "cpu_s", "seconds/", "tokens_per_s", "stage")):
                    assert found[key] == pytest.approx(value, rel=1e-5, abs=1e-5), (name, key)
        assert two[name]["weights"] == pytest.approx(alone[name]["weights"], rel=1e-6)


def test_the_second_process_has_the_same_weights_and_writes_nothing(launched):
    first, second = results(launched, 0), results(launched, 1)
    for name in ("sft", "rl"):
        assert first[name]["weights"] == second[name]["weights"]
        assert second[name]["lines"] == []
        assert (launched / f"{name}-0" / "checkpoints" / f"{name}-2.pt").is_file()
        assert not (launched / f"{name}-1" / "checkpoints").exists()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_every_item_has_one_owner(size, count):
    owned = [list(Processes(rank, size).own(count)) for rank in range(size)]
    assert [position for part in owned for position in part] == list(range(count))
    assert max(map(len, owned)) - min(map(len, owned)) <= 1


def test_alone_nothing_is_exchanged():
    assert ALONE.is_main and ALONE.gather([1, 2]) == [1, 2] and not ALONE.agree(False)
    ALONE.wait()
    ALONE.broadcast([])
    layer = nn.Linear(1, 1)
    ALONE.sum_gradients(list(layer.parameters()))
    assert layer.weight.grad is None
    assert Shards(2).collect({1: "b", 0: "a"}) == ["a", "b"]
    with pytest.raises(ValueError, match="num_shards: found 1 for 2 processes"):
        Shards(1, Processes(1, 2))


def test_large_gradients_travel_in_several_parts(monkeypatch):
    monkeypatch.setattr(processes_module, "_BUCKET_NUMEL", 10)
    params = [nn.Parameter(p) for p in nn.Linear(3, 3).double().parameters()]
    params = [*nn.Linear(3, 3).parameters(), *nn.Linear(3, 1).parameters(), *params]
    buckets = processes_module._buckets(params)
    assert [[p.numel() for p in bucket] for bucket in buckets] == [[9], [3, 3, 1], [9], [3]]


def test_a_sharded_model_is_refused_with_the_reason(monkeypatch):
    import accelerate
    from accelerate.utils import DistributedType

    state = SimpleNamespace(distributed_type=DistributedType.FSDP)
    monkeypatch.setattr(accelerate, "Accelerator", lambda **_: SimpleNamespace(state=state))
    with pytest.raises(ValueError, match=r"found distributed type FSDP; .* --engine verl"):
        processes_module.launched_processes()
