"""Answers that a run has stored, as a policy that curation asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data_specs import Sample
from tasks.curate_difficulty import Ask

from .stored_answers import read_stored


class StoredPolicy:
    """Answers drawn at temperature 1 in `rollouts.jsonl` files; greedy ones are passed over."""

    is_live = False

    def __init__(self, paths: Sequence[Path]) -> None:
        """Reads the files.

        Raises: ValueError if one is of another kind.
        """
        self.name = f"rollouts {', '.join(map(str, paths))}"
        self._texts: dict[tuple[str, str], list[str]] = {}
        for path in paths:
            for answer in read_stored(path).answers:
                if answer.name != "greedy":
                    key = answer.source, answer.id
                    self._texts.setdefault(key, []).append(answer.response)

    def answers(self, asks: Iterable[Ask]) -> Iterator[tuple[Sample, list[str]]]:
        """All stored answers of each row that has some.

        Raises: ValueError if no row has any.
        """
        num_asked = num_found = 0
        for sample, _ in asks:
            num_asked += 1
            texts = self._texts.get((sample.source, sample.id))
            if texts:
                num_found += 1
                yield sample, texts
        if num_asked and not num_found:
            raise ValueError(
                f"{self.name}: has sampled answers to none of the {num_asked} rows; give the file "
                "of a run on these rows (greedy answers do not count)"
            )
