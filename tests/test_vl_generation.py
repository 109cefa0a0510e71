"""Whatever way generate() works, its answer is that of whole forward passes without a cache."""

import pytest
import torch
from naive_minimax import draw_ids, tiny_text
from transformers import DynamicCache

MODEL = tiny_text(initializer_range=0.3)  # sharp enough for beams to part and cross
NEW = 12


def generate(ids, **options):
    settings = {"do_sample": False, "max_new_tokens": NEW, "pad_token_id": 0, **options}
    torch.manual_seed(0)  # for sampling
    return MODEL.generate(ids, **settings)


@torch.no_grad()
def greedy(ids, num_tokens=NEW):
    for _ in range(num_tokens):
        ids = torch.cat([ids, MODEL(ids).logits[:, -1:].argmax(-1)], 1)
    return ids


def padded(rows, side):
    width = max(row.shape[1] for row in rows)
    ids, mask = torch.zeros(2, len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        places = slice(width - row.shape[1], None) if side == "left" else slice(row.shape[1])
        ids[index, places], mask[index, places] = row, 1
    return ids, mask


def test_greedy_equals_a_loop_without_cache():
    ids = draw_ids(2, 9)
    assert torch.equal(generate(ids), greedy(ids))


@pytest.mark.parametrize("beams", [2, 4])
def test_beams_equal_beams_without_cache(beams):
    ids = draw_ids(2, 7)
    options = {"num_beams": beams, "num_return_sequences": beams}
    found = generate(ids, **options)
    assert torch.equal(found, generate(ids, use_cache=False, **options))
    first = generate(ids, num_beams=beams)
    assert not torch.equal(first, generate(ids))  # beams found what greedy did not


@pytest.mark.parametrize("beams", [2, 4])
def test_beams_of_a_left_padded_batch_equal_those_of_each_row_alone(beams):
    rows = [draw_ids(1, n, seed=n) for n in (5, 11)]
    ids, mask = padded(rows, "left")
    found = generate(ids, attention_mask=mask, num_beams=beams)
    for index, row in enumerate(rows):
        alone = generate(row, num_beams=beams)[0, row.shape[1] :]
        assert torch.equal(found[index, 11:], alone)


def test_sampling_several_answers_equals_sampling_without_cache():
    ids = draw_ids(2, 6)
    options = {"do_sample": True, "num_return_sequences": 3, "top_k": 0}
    found = generate(ids, **options)
    assert torch.equal(found, generate(ids, use_cache=False, **options))
    assert len({tuple(row) for row in found.tolist()}) == 6


def test_a_left_padded_batch_equals_its_rows_alone():
    rows = [draw_ids(1, n, seed=n) for n in (3, 8, 13)]
    ids, mask = padded(rows, "left")
    found = generate(ids, attention_mask=mask)
    for index, row in enumerate(rows):
        assert torch.equal(found[index, 13:], greedy(row)[0, row.shape[1] :])


def test_a_second_turn_goes_on_with_the_first_ones_cache():
    first = generate(draw_ids(1, 9), return_dict_in_generate=True)
    cache = first.past_key_values
    assert cache.get_seq_length() == 9 + NEW - 1  # the last drawn token was not read
    whole = torch.cat([first.sequences, draw_ids(1, 5, seed=8)], 1)
    expected = greedy(whole)
    assert torch.equal(generate(whole, past_key_values=cache), expected)
    # only the tokens that the cache lacks, with a mask over all
    mask = torch.ones_like(whole)
    rest = whole[:, cache.get_seq_length() :]
    found = generate(rest, past_key_values=cache, attention_mask=mask)
    assert torch.equal(found[:, rest.shape[1] :], expected[:, whole.shape[1] :])


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"do_sample": True, "num_return_sequences": 4, "top_k": 0},
    ],
)
def test_a_continued_cache_serves_beams_and_several_answers(options):
    ids = draw_ids(2, 10)
    with torch.no_grad():
        cache = MODEL(ids[:, :8]).past_key_values
    assert torch.equal(generate(ids, past_key_values=cache, **options), generate(ids, **options))


def test_right_padded_prefill_then_decoding_equals_each_row_alone():
    rows = [draw_ids(1, n, seed=n) for n in (4, 9)]
    ids, mask = padded(rows, "right")
    with torch.no_grad():
        output = MODEL(ids, attention_mask=mask)
        cache = output.past_key_values
        last = mask.sum(1) - 1
        token = output.logits[torch.arange(2), last].argmax(-1)[:, None]
        drawn = [token]
        for _ in range(NEW - 1):
            output = MODEL(token, past_key_values=cache)
            cache, token = output.past_key_values, output.logits[:, -1:].argmax(-1)
            drawn.append(token)
    for index, row in enumerate(rows):
        assert torch.equal(torch.cat(drawn, 1)[index], greedy(row)[0, row.shape[1] :])


@pytest.mark.parametrize("chunk", [1, 4, 50])
def test_prefill_in_chunks_equals_prefill_at_once(chunk):
    rows = [draw_ids(1, n, seed=n) for n in (6, 11)]
    ids, mask = padded(rows, "left")
    found = generate(ids, attention_mask=mask, prefill_chunk_size=chunk)
    assert torch.equal(found, generate(ids, attention_mask=mask))


def test_embeddings_instead_of_ids_give_the_same_answer():
    ids = draw_ids(1, 7)
    found = MODEL.generate(
        inputs_embeds=MODEL.get_input_embeddings()(ids), do_sample=False, max_new_tokens=NEW
    )
    assert torch.equal(found, greedy(ids)[:, 7:])


def test_what_needs_to_take_tokens_back_is_refused():
    with pytest.raises(ValueError, match="not supported with stateful models"):
        generate(draw_ids(1, 5), prompt_lookup_num_tokens=2)


def test_a_cache_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="found a DynamicCache; lightning layers need"):
        generate(draw_ids(1, 5), past_key_values=DynamicCache())
