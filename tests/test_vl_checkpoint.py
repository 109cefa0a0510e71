"""Checkpoints: whole or not at all, pruned by count, and what happens when one is damaged."""

import errno
import resource

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.tiny_vl import tiny_policy
from vl import atomic
from vl.atomic import write_folder
from vl.checkpoint import CheckpointError, CheckpointStore
from vl.stage import StageSeconds

SECONDS = StageSeconds(cpu_s=1.0, wall_s=2.0)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def save(store, stage, step, **options):
    return store.save(stage, step, {"weights": torch.full((50,), float(step))}, SECONDS, **options)


def test_the_newest_few_are_kept_in_the_order_of_the_run(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=2)
    for stage, step in (("sft", 100), ("rl", 9), ("rl", 10)):
        save(store, stage, step)
    assert names(tmp_path) == ["rl-10.pt", "rl-9.pt"] and store.position() == ("rl", 10)
    save(store, "rl", 9)  # a run that went back: what lay after it is undone
    assert names(tmp_path) == ["rl-9.pt"]
    with pytest.raises(ValueError, match="keep_last: found 0"):
        CheckpointStore(tmp_path, keep_last=0)


def test_a_truncated_newest_one_is_passed_over_with_a_note(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, "rl", 2)
    newest = save(store, "rl", 4)
    whole = newest.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        newest.write_bytes(whole[:length])
        found = store.load()
        assert found is not None and found.position == ("rl", 2)
        assert torch.equal(found.state["weights"], torch.full((50,), 2.0))
        assert "rl-4.pt: cannot be read" in found.notes[0]
        assert found.notes[1] == "continuing from the one before, rl-2.pt"


def test_without_a_readable_one_the_run_does_not_start_again_silently(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, "rl", 2).write_bytes(b"torn")
    with pytest.raises(
        CheckpointError, match=r"rl-2\.pt: cannot be read, it is cut short; no other is left"
    ):
        store.load()


def test_a_renamed_checkpoint_is_not_trusted(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, "rl", 2).rename(tmp_path / "rl-3.pt")
    with pytest.raises(CheckpointError, match=r"rl-3\.pt: is of rl step 2"):
        store.load()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_one_before_and_says_so(call, tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    save(store, "rl", 2)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, call, full)
        with pytest.raises(CheckpointError, match="No space left") as caught:
            save(store, "rl", 4)
    assert "rl-4.pt: the checkpoint could not be written" in str(caught.value)
    assert "untouched: rl-2." in str(caught.value) and "--resume" in str(caught.value)
    assert names(tmp_path) == ["rl-2.pt"] and store.position() == ("rl", 2)


def test_a_write_that_the_system_cuts_off_leaves_the_one_before(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, "rl", 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(CheckpointError, match=r"rl-4\.pt: the checkpoint could not be written"):
            store.save("rl", 4, {"weights": torch.zeros(100_000)}, SECONDS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["rl-2.pt"] and store.position() == ("rl", 2)


def test_the_model_beside_a_checkpoint_is_one_of_transformers(tmp_path):
    policy = tiny_policy()
    store = CheckpointStore(tmp_path, keep_last=1)

    def export(folder):
        policy.model.save_pretrained(folder)

    for step in (1, 2):
        save(store, "rl", step, export=export)
    assert names(tmp_path) == ["rl-2", "rl-2.pt"]
    found = AutoModelForImageTextToText.from_pretrained(tmp_path / "rl-2").state_dict()
    for name, value in policy.model.state_dict().items():
        assert torch.equal(found[name], value), name


def test_a_failed_export_leaves_nothing(tmp_path):
    store = CheckpointStore(tmp_path)

    def export(folder):
        (folder / "half").write_text("...")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CheckpointError, match="there is no earlier one"):
        save(store, "rl", 1, export=export)
    assert names(tmp_path) == []


def test_a_model_is_written_anew_or_not_at_all(tmp_path, monkeypatch):
    policy = tiny_policy()
    write_folder(tmp_path / "model", policy.save)
    before = names(tmp_path / "model")

    def broken(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(policy.processor), "save_pretrained", broken)
    with pytest.raises(OSError, match="No space"):
        write_folder(tmp_path / "model", policy.save)
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == before
