"""The prompt pool: short, boxed, drawn from (seed, row, epoch)."""

from __future__ import annotations

from collections import Counter

from data_specs import Message, RewardSpec, Sample
from tasks.prompts import POOL, instruction, pose


def row(verifier: str) -> Sample:
    reward = RewardSpec(verifier=verifier, answer="3", ground_truth=r"\boxed{3}")
    message = Message(role="user", content="<image>count every dog.")
    return Sample(
        id="s-train-0-0", source="s", task="counting", messages=(message,), images=(), reward=reward
    )


def test_ten_different_short_wordings_say_boxed() -> None:
    assert len(set(POOL)) == 10
    assert all(r"\boxed{}" in text and len(text.split()) <= 5 for text in POOL)


def test_heldout_rows_always_get_the_first_wording() -> None:
    texts = {pose(row("number"), seed=s, epoch=e, heldout=True) for s in (0, 1) for e in (0, 1)}
    assert texts == {r"count every dog. answer in \boxed{}"}


def test_training_rows_draw_a_wording_by_seed_row_and_epoch() -> None:
    text = pose(row("number"), seed=0, epoch=0, heldout=False)
    assert text == pose(row("number"), seed=0, epoch=0, heldout=False)
    assert text.removeprefix("count every dog. ") in POOL
    drawn = {pose(row("number"), seed=0, epoch=epoch, heldout=False) for epoch in range(40)}
    assert len(drawn) > 5


def test_all_wordings_are_equally_likely() -> None:
    counts = Counter(instruction(f"row-{number}", 0, 0) for number in range(2000))
    assert set(counts) == set(POOL)
    assert max(counts.values()) < 260 and min(counts.values()) > 140


def test_box_rows_are_posed_as_they_are() -> None:
    assert pose(row("detection"), seed=0, epoch=0, heldout=False) == "count every dog."
    posed = pose(row("detection"), seed=0, epoch=0, heldout=True, box_instruction="give boxes.")
    assert posed == "count every dog. give boxes."
