"""The rules of curation by name, in the order in which rows meet them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from tasks.curate_balance import balance_single_multi, cap_groups, count_of, counted_category
from tasks.curate_boxes import (
    box_labels,
    drop_complex_label,
    drop_crowded,
    drop_large_box,
    make_relative,
    single_or_multi,
)
from tasks.curate_choice import drop_choice, drop_true_false
from tasks.curate_known import drop_duplicate, drop_known_image, drop_known_words
from tasks.curate_rule import BOXES, REASONING, Params, RowRule, Rule, SetRule
from tasks.curate_text import (
    drop_foreign,
    drop_long_answer,
    drop_long_query,
    drop_symbols,
    drop_unverifiable,
)

_PAPER = "V-Triune, arXiv 2505.18129, section 3.3"
_M1 = "MiniMax-M1, arXiv 2506.13585"
_READ = frozenset({"counting", "ocr"})
_DETECTION, _GROUNDING = frozenset({"detection"}), frozenset({"grounding"})
_COUNTING = frozenset({"counting"})

RULES: dict[str, Rule] = {
    "duplicates": RowRule(
        about="the same question of the same images, again",
        source="ours",
        judge=drop_duplicate,
    ),
    "known_words": RowRule(
        about="n words in a row of an evaluation question (--against)",
        source=f"{_M1}: n-gram decontamination; n and the cap on common wording are ours",
        judge=drop_known_words,
        params={"n": 13, "common_max": 10},
        needs_known=True,
    ),
    "known_image": RowRule(
        about="an image of an evaluation (--against)",
        source="ours",
        judge=drop_known_image,
        needs_known=True,
    ),
    "choice": RowRule(
        about="multiple choice; with rewrite=1 asked openly where an option makes an answer",
        source=f"{_PAPER}; rewriting: {_M1}",
        judge=drop_choice,
        tasks=REASONING,
        params={"rewrite": 0},
        may_rewrite=True,
    ),
    "true_false": RowRule(
        about="answers true and false, and with yes_no=1 yes and no",
        source=f"{_PAPER}; {_M1}",
        judge=drop_true_false,
        tasks=REASONING,
        params={"yes_no": 1},
    ),
    "answer_symbols": RowRule(
        about="answers with any of = [ ] ( ) ;",
        source=_PAPER,
        judge=drop_symbols,
        tasks=REASONING,
    ),
    "answer_length": RowRule(
        about="answers of more than max_chars characters",
        source=_PAPER,
        judge=drop_long_answer,
        tasks=REASONING,
        params={"max_chars": 20},
    ),
    "query_length": RowRule(
        about="queries of more than max_tokens tokens with images, estimated",
        source=f"{_PAPER}; the limit is ours, a token's 28 x 28 pixels those of Qwen2.5-VL",
        judge=drop_long_query,
        tasks=REASONING,
        params={
            "max_tokens": 4096,
            "chars_per_token": 4,
            "pixels_per_token": 784,
            "image_tokens_max": 16384,
        },
    ),
    "relative_boxes": RowRule(
        about="boxes in pixels or shares are rewritten per mille",
        source=_PAPER,
        judge=make_relative,
        tasks=BOXES,
        may_rewrite=True,
    ),
    "boxes_per_category": RowRule(
        about="more than max_boxes boxes of one category",
        source=_PAPER,
        judge=drop_crowded,
        tasks=_DETECTION,
        params={"max_boxes": 10},
    ),
    "box_share": RowRule(
        about="a box over max_share of the picture",
        source=_PAPER,
        judge=drop_large_box,
        tasks=BOXES,
        params={"max_share": 0.5},
    ),
    "label_phrase": RowRule(
        about="labels of more than max_words words, or with a clause, a list or a negation",
        source=f"{_PAPER}: complex phrase labels; what is complex is ours",
        judge=drop_complex_label,
        tasks=_GROUNDING,
        params={"max_words": 8},
    ),
    "english": RowRule(
        about="questions or answers in another language",
        source=f"{_PAPER}; how it is told is ours",
        judge=drop_foreign,
        tasks=_READ,
        params={"min_ascii": 0.95},
    ),
    "verifiable": RowRule(
        about="references that do not score 1 under their own verifier",
        source=f"{_PAPER}, of OCR; here of every task",
        judge=drop_unverifiable,
    ),
    "single_multi": SetRule(
        about="rows too many for multi_per_single rows of several boxes to one of single boxes",
        source=_PAPER,
        groups=single_or_multi,
        balance=balance_single_multi,
        tasks=_DETECTION,
        params={"multi_per_single": 2},
    ),
    "category_cap": SetRule(
        about="rows all of whose categories have times_median the median, but at least `least`",
        source=f"{_PAPER}: category long tail; the cap is ours",
        groups=box_labels,
        balance=cap_groups,
        tasks=_DETECTION,
        params={"times_median": 4, "least": 20},
    ),
    "count_balance": SetRule(
        about="rows too many of one count: over times_median the median, but at least `least`",
        source=f"{_PAPER}; the cap is ours",
        groups=count_of,
        balance=cap_groups,
        tasks=_COUNTING,
        params={"times_median": 1, "least": 10},
    ),
    "count_category": SetRule(
        about="rows too many of one counted thing, likewise",
        source=f"{_PAPER}; the cap is ours",
        groups=counted_category,
        balance=cap_groups,
        tasks=_COUNTING,
        params={"times_median": 1, "least": 10},
    ),
}

_POSITIVE = ("chars_per_token", "pixels_per_token", "multi_per_single", "n")


def chosen_rules(
    only: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    settings: Iterable[str] = (),
) -> dict[str, Params]:
    """The rules to run, in their order, with their numbers.

    Args:
        only: names; None = all.
        skip: names to leave out.
        settings: `NAME.PARAM=VALUE`.

    Raises: ValueError for an unknown name or a value that cannot be used.
    """
    wanted = None if only is None else [_known(name, "--only") for name in only]
    left_out = {_known(name, "--skip") for name in skip}
    rules = {
        name: dict(rule.params)
        for name, rule in RULES.items()
        if name not in left_out and (wanted is None or name in wanted)
    }
    for text in settings:
        name, param, value = _setting(text)
        if name not in rules:
            raise ValueError(f"--set {text}: the rule {name} does not run; take it out of --skip")
        rules[name][param] = value
    return {**rules}


def _setting(text: str) -> tuple[str, str, float]:
    key, equals, written = text.partition("=")
    name, dot, param = key.partition(".")
    if not (equals and dot):
        raise ValueError(f"--set {text!r}; allowed: NAME.PARAM=VALUE, answer_length.max_chars=30")
    params: Mapping[str, float] = RULES[_known(name, "--set")].params
    if param not in params:
        known = ", ".join(params) or "none"
        raise ValueError(f"--set {text}: {name} has no {param!r}; its numbers: {known}")
    try:
        value = float(written)
    except ValueError:
        value = float("nan")
    least = 1e-9 if param in _POSITIVE else 0.0
    if param == "n":
        least = 1.0
    if not least <= value < float("inf"):
        allowed = "a number above 0" if least else "a number of at least 0"
        raise ValueError(f"--set {text}: {written!r}; allowed: {allowed}")
    return name, param, value


def _known(name: str, flag: str) -> str:
    if name in RULES:
        return name
    near = get_close_matches(name, RULES, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"{flag} {name!r} is no rule{hint}; rules: {', '.join(RULES)}")
