"""Rules over all rows of a source: how many of each kind are kept, drawn by seed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from data_specs import Sample
from tasks.curate_rule import Candidate, Params, answer_of
from verifiers.numerals import plain_number

_CATEGORY = re.compile(
    r"\bhow many (?:of the )?(?P<many>[^?.,]{1,60}?) "
    r"(?:are|is|do|does|did|can|have|has|were|in|on)\b"
    r"|\b(?:number of|count (?:all |every |each |the )*)(?P<counted>[^?.,]{1,60})",
    re.IGNORECASE,
)


def balance_single_multi(candidates: Sequence[Candidate], params: Params) -> dict[int, str]:
    """Rows too many for `multi_per_single` rows of several boxes to each row of one.

    If a source has only one of the two kinds, nothing is left out: there is nothing to balance.
    """
    singles = _shuffled(c for c in candidates if c.groups == ("single",))
    multis = _shuffled(c for c in candidates if c.groups == ("multi",))
    if not singles or not multis:
        return {}
    ratio = params["multi_per_single"]
    num_multi = min(len(multis), max(1, int(len(singles) * ratio)))
    num_single = min(len(singles), max(1, int(num_multi / ratio)))
    found = f"{len(singles)} single-box and {len(multis)} multi-box rows; wanted 1 : {ratio:g}"
    return {c.number: found for c in (*singles[num_single:], *multis[num_multi:])}


def cap_groups(candidates: Sequence[Candidate], params: Params) -> dict[int, str]:
    """Rows all of whose groups are full: `times_median` the median group, but at least `least`."""
    sizes = Counter(group for candidate in candidates for group in candidate.groups)
    if not sizes:
        return {}
    most = max(params["least"], params["times_median"] * median(sizes.values()))
    taken: Counter[str] = Counter()
    full: dict[int, str] = {}
    for candidate in _shuffled(candidates):
        if candidate.groups and all(taken[group] >= most for group in candidate.groups):
            names = ", ".join(f"{group!r} ({sizes[group]} rows)" for group in candidate.groups[:3])
            full[candidate.number] = f"{names}: kept {most:g}, the cap"
        else:
            taken.update(candidate.groups)
    return full


def count_of(sample: Sample) -> tuple[str, ...]:
    """The number that is the answer."""
    answer = answer_of(sample)
    number = plain_number(answer)
    return (answer.casefold() if number is None else str(number),)


def counted_category(sample: Sample) -> tuple[str, ...]:
    """What is counted: `extra_info.category`, or what `how many X are` asks; may be empty."""
    given = sample.extra.get("category")
    if isinstance(given, str) and given:
        return (given.casefold(),)
    found = _CATEGORY.search(sample.question[:2000])
    if found is None:
        return ()
    return ((found["many"] or found["counted"]).strip().casefold(),)


def _shuffled(candidates: Iterable[Candidate]) -> list[Candidate]:

    return sorted(candidates, key=lambda candidate: (candidate.order, candidate.number))
