"""The tokenizer: anything round-trips, a box costs nine tokens, coordinates are single tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vl.models.minimax_vl import build_tokenizer, placeholder_ids
from vl.models.minimax_vl.tokenizer import ANSWER_PIECES, SPECIALS
from vl.text import TextEncoder

BOX = "<answer>[{'bbox_2d': [62, 125, 344, 406], 'label': 'dog'}]</answer>"
TOKENIZER = build_tokenizer(["a red dog", "one cat", BOX], coordinate_bins=32)


def ids(text):
    return TOKENIZER(text, add_special_tokens=False).input_ids


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    | st.lists(
        st.sampled_from([*ANSWER_PIECES, " dog", "cat", "<0x41>", "user\n", "31, ", "é", "\t"])
    ).map("".join)
)
def test_any_string_round_trips(text):
    if not any(special in text for special in SPECIALS):
        assert TOKENIZER.decode(ids(text)) == text


def test_a_box_answer_is_nine_tokens_with_its_end():
    pieces = [TOKENIZER.decode([index]) for index in TextEncoder(tokenizer=TOKENIZER).answer(BOX)]
    start, middle, end = "<answer>[{'bbox_2d': [", "], 'label': '", "'}]</answer>"
    assert pieces == [
        start,
        "62, ",
        "125, ",
        "344, ",
        "406",
        middle,
        "dog",
        end,
        TOKENIZER.eos_token,
    ]


@pytest.mark.parametrize("k", range(33))
def test_every_coordinate_of_the_grid_is_one_token_in_every_place(k):
    number = round(k * 1000 / 32)
    for place in range(4):
        box = ["0", "0", "0", "0"]
        box[place] = str(number)
        text = f"<answer>[{{'bbox_2d': [{', '.join(box)}], 'label': 'dog'}}]</answer>"
        assert len(ids(text)) == len(ids(BOX))


def test_numbers_outside_a_box_are_spelt_digit_by_digit():
    assert [TOKENIZER.decode([i]) for i in ids("\\boxed{125}")] == ["\\boxed{", "1", "2", "5", "}"]


def test_known_words_are_one_token_with_their_space_and_unknown_ones_are_spelt():
    assert len(ids("a red dog")) == 3
    assert len(ids(" xyz")) == 4
    assert len(ids("é")) == 2  # two UTF-8 bytes


def test_placeholders_are_the_special_tokens_but_the_end():
    names = TOKENIZER.convert_ids_to_tokens(placeholder_ids(TOKENIZER))
    assert sorted(names) == ["<beginning_of_sentence>", "<image>", "<pad>", "<video>"]
