"""When rollouts end, step by step and for whole sequences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vl.stops import RepetitionStop, StopConfig, Stops, is_complete, repetition_stop

END = 0
PIECES = ["", "<think>", "</think>", "\\boxed{", "}", "7", "{", "\\boxed{8}"]
PIECES += ["<answer>", "</answer>"]


def decode(rows):
    return ["".join(PIECES[token] for token in row) for row in rows]


def ends(rows, *, max_new_tokens=100, **config):
    """(tokens, reason) of each row of token ids, none of them sure; (None, None) if it goes on."""
    stops = Stops(
        len(rows), {END}, max_new_tokens=max_new_tokens, config=StopConfig(**config), decode=decode
    )
    found = [(None, None)] * len(rows)
    for step, tokens in enumerate(zip(*rows, strict=True), start=1):
        reasons = stops.update(torch.tensor(tokens), torch.full((len(rows),), 0.5))
        for row, reason in enumerate(reasons):
            if reason and found[row][0] is None:
                found[row] = (step, reason)
    return found


def test_an_end_token_ends_a_rollout_whatever_else_would():
    assert ends([[5, END], [5, 5]]) == [(2, "end"), (None, None)]
    assert ends([[5, END], [5, 5]], max_new_tokens=2) == [(2, "end"), (2, "length")]
    always = RepetitionStop(num_tokens=1, probability=0.4)
    assert ends([[END], [5]], repetition=always) == [(1, "end"), (1, "repetition")]


@pytest.mark.parametrize(
    ("row", "tokens"),
    [
        ([3, 5, 4, 5], 3),  # \boxed{7}
        ([7, 5, 5, 5], 1),
        ([3, 6, 5, 4, 4, 5], 5),  # \boxed{{7}}
        ([3, 4, 5, 5], None),  # an empty box answers nothing
        ([1, 7, 2, 7], 4),  # boxes inside the thinking are steps on the way
        ([8, 7, 9, 5], 3),  # inside a tag the tag must close
        ([8, 7, 5, 5], None),
        ([5, 4, 4, 5], None),
    ],
)
def test_a_complete_answer_ends_a_rollout_at_its_last_token(row, tokens):
    (found,) = ends([row], complete_answer="boxed")
    assert found == ((tokens, "complete") if tokens else (None, None))


def test_the_tag_form_waits_for_the_tag():
    assert ends([[3, 5, 4, 5, 5, 5]], complete_answer="tag") == [(None, None)]
    assert ends([[7, 8, 5, 9, 5, 5]], complete_answer="tag") == [(4, "complete")]
    assert is_complete("<think>2+2</think>\n<answer> 4 </answer>", "tag")
    assert not is_complete("<think>2+2</think>\n<answer> 4 <", "tag")


def test_answers_are_read_only_where_a_token_can_close_one():
    seen = []

    def counted(rows):
        seen.extend(rows)
        return decode(rows)

    config = StopConfig(complete_answer="boxed")
    stops = Stops(1, {END}, max_new_tokens=100, config=config, decode=counted)
    for token in [5, 5, 6, 5, 4]:
        stops.update(torch.tensor([token]), torch.tensor([0.5]))
    assert seen == [[5], [6], [4], [5, 5, 6, 5, 4]]


def test_kept_rows_keep_their_counts_and_texts():
    config = StopConfig(
        complete_answer="boxed", repetition=RepetitionStop(num_tokens=3, probability=0.9)
    )
    stops = Stops(3, {END}, max_new_tokens=9, config=config, decode=decode)
    stops.update(torch.tensor([5, 3, 5]), torch.tensor([0.1, 0.1, 0.95]))
    stops.update(torch.tensor([5, 5, 5]), torch.tensor([0.1, 0.1, 0.95]))
    stops.keep(torch.tensor([1, 2]))
    assert stops.update(torch.tensor([4, 5]), torch.tensor([0.95, 0.95])) == [
        "complete",
        "repetition",
    ]


def test_a_probability_at_the_threshold_starts_the_count_anew():
    rule = RepetitionStop(num_tokens=2, probability=0.99)
    assert repetition_stop([0.995, 0.99, 0.995, 0.5, 0.999, 1.0, 1.0], rule) == 6
    assert repetition_stop([0.995] * 2999) is None and repetition_stop([0.995] * 3001) == 3000
    stops = Stops(1, {END}, max_new_tokens=99, config=StopConfig(repetition=rule))
    for probability in (0.995, 0.99, 0.995):
        assert stops.update(torch.tensor([5]), torch.tensor([probability])) == [None]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.sampled_from([0.5, 0.99, 0.991, 1.0]), min_size=n, max_size=n), max_size=12
        )
    ),
    num_tokens=st.integers(1, 4),
)
def test_counting_step_by_step_agrees_with_whole_sequences(rows, num_tokens):
    rule = RepetitionStop(num_tokens=num_tokens)
    width = len(rows[0]) if rows else 1
    stops = Stops(width, {END}, max_new_tokens=99, config=StopConfig(repetition=rule))
    first = [None] * width
    for step, probabilities in enumerate(rows, start=1):
        reasons = stops.update(
            torch.full((width,), 5), torch.tensor(probabilities, dtype=torch.float64)
        )
        first = [f or (step if r else None) for f, r in zip(first, reasons, strict=True)]
    columns = list(zip(*rows, strict=True)) or [()] * width
    assert first == [repetition_stop(column, rule) for column in columns]


def test_settings_without_meaning_are_refused():
    with pytest.raises(ValueError, match=r"num_tokens 0 and probability 0\.99"):
        RepetitionStop(num_tokens=0)
    with pytest.raises(ValueError, match=r"probability 1\.0"):
        RepetitionStop(probability=1.0)
    with pytest.raises(ValueError, match="no `decode` is given"):
        Stops(1, {0}, max_new_tokens=1, config=StopConfig(complete_answer="tag"))
