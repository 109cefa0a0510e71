"""A cache is a value: it continues exactly, branches, packs documents, and is not copied."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_minimax import draw_ids, naive_logits, tiny_text

from vl.models.minimax_vl.cache import LayerState, MiniMaxVLCache
from vl.models.minimax_vl.packing import documents_of
from vl.models.minimax_vl.softmax import QUERY_BLOCK_TOKENS, attend, reach_of_chunk

MODEL = tiny_text()
SOFTMAX_LAYER = 2


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def run(ids, **options):
    with torch.no_grad():
        return MODEL(ids, **options)


def test_the_model_equals_one_written_from_the_formulas():
    ids = draw_ids(2, 41)
    logits = run(ids).logits
    for row in range(2):
        close(logits[row].double(), naive_logits(MODEL, ids[row]), 5e-6)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 13), min_size=1, max_size=6), st.integers(0, 99))
def test_chunks_of_any_lengths_equal_one_pass(lengths, seed):
    ids = draw_ids(2, sum(lengths), seed=seed)
    cache, logits = None, []
    for chunk in ids.split(lengths, dim=1):
        output = run(chunk, past_key_values=cache)
        cache = output.past_key_values
        logits.append(output.logits)
    close(torch.cat(logits, 1), run(ids).logits, 2e-6)
    assert cache.get_seq_length() == sum(lengths)


def test_decoding_token_by_token_equals_one_pass_to_a_millionth():
    ids = draw_ids(1, 60)
    cache, logits = None, []
    for token in ids.split(1, dim=1):
        output = run(token, past_key_values=cache)
        cache = output.past_key_values
        logits.append(output.logits)
    difference = (torch.cat(logits, 1) - run(ids).logits).abs()
    assert difference.mean() < 1e-6 and difference.max() < 4e-6


def test_decoding_in_bfloat16_strays_no_further_than_an_all_softmax_model():
    ids = draw_ids(1, 120)
    strayed = {}
    for name, pattern in (("hybrid", [0, 0, 1, 0]), ("softmax", [1, 1, 1, 1])):
        model = tiny_text(attn_type_list=pattern).bfloat16()
        cache, steps = None, []
        with torch.no_grad():
            for token in ids.split(1, dim=1):
                output = model(token, past_key_values=cache)
                cache = output.past_key_values
                steps.append(output.logits.log_softmax(-1))
            whole = model(ids).logits.log_softmax(-1)
        gap = (torch.cat(steps, 1) - whole).abs().mean((0, 2))
        strayed[name] = gap.mean()
        assert gap[60:].mean() < 1.5 * gap[:60].mean()  # and does not grow
    assert strayed["hybrid"] < strayed["softmax"] < 2e-3


def test_a_cache_is_unchanged_by_reading_on_and_two_branches_do_not_meet():
    first = run(draw_ids(1, 9)).past_key_values
    prefix = run(draw_ids(1, 1, seed=4), past_key_values=first).past_key_values
    kept = [None if s.key is None else s.key.clone() for s in prefix.layers]
    branches = torch.cat([draw_ids(1, 4, seed=2), draw_ids(1, 4, seed=3)])
    caches, logits = [prefix, prefix], [[], []]
    for t in range(4):  # in turn, so that each would write where the other reads
        for row in (0, 1):
            output = run(branches[row : row + 1, t : t + 1], past_key_values=caches[row])
            caches[row] = output.past_key_values
            logits[row].append(output.logits[0, 0])
    ids = torch.cat([draw_ids(1, 9), draw_ids(1, 1, seed=4)], 1)
    whole = run(torch.cat([ids.expand(2, -1), branches], 1)).logits[:, 10:]
    close(torch.stack([torch.stack(own) for own in logits]), whole)
    for before, state in zip(kept, prefix.layers, strict=True):
        assert before is None or torch.equal(before, state.key)
    assert prefix.get_seq_length() == 10


def test_decoding_writes_behind_the_keys_and_does_not_copy_them():
    cache = run(draw_ids(1, 300)).past_key_values
    cache = run(draw_ids(1, 1), past_key_values=cache).past_key_values
    place = cache.layers[SOFTMAX_LAYER].key.data_ptr()
    for _ in range(8):  # 301 positions were given room for 256 more
        cache = run(draw_ids(1, 32), past_key_values=cache).past_key_values
        assert cache.layers[SOFTMAX_LAYER].key.data_ptr() == place
    states = [s.state.shape for s in cache.layers if s.state is not None]
    assert states == [(1, 4, 8, 8)] * 3  # whatever the length


def test_room_is_kept_when_rows_are_chosen_or_repeated():
    cache = run(draw_ids(2, 5)).past_key_values
    cache = run(draw_ids(2, 1), past_key_values=cache).past_key_values
    for changed in (cache.select(torch.tensor([1, 1, 0])), cache.expand(3)):
        place = changed.layers[SOFTMAX_LAYER].key.data_ptr()
        ids = draw_ids(changed.valid.shape[0], 1)
        after = run(ids, past_key_values=changed).past_key_values
        assert after.layers[SOFTMAX_LAYER].key.data_ptr() == place


def test_under_gradients_the_old_keys_stay_as_the_graph_saw_them():
    key = torch.randn(1, 2, 3, 4, requires_grad=True)
    with torch.no_grad():
        roomy = LayerState(key=key, value=key).extend(key, key)
    longer = roomy.extend(key, key)
    with torch.no_grad():
        roomy.extend(key + 1, key + 1)  # writes where `longer` must not look
    longer.key.square().sum().backward()
    close(key.grad, 2 * key.detach())
    assert torch.equal(longer.key[:, :, 6:], key)


def test_a_cache_written_in_inference_mode_goes_on_outside():
    ids = draw_ids(1, 6)
    with torch.inference_mode():
        cache = MODEL(ids[:, :3]).past_key_values
        cache = MODEL(ids[:, 3:5], past_key_values=cache).past_key_values
    close(run(ids[:, 5:], past_key_values=cache).logits, run(ids).logits[:, -1:])


def test_crop_is_refused_with_what_to_do_instead():
    with pytest.raises(NotImplementedError, match="keep the one from before"):
        run(draw_ids(1, 3)).past_key_values.crop(1)


def test_length_and_mask_size_are_right_although_the_first_layer_is_lightning():
    cache = run(draw_ids(2, 7)).past_key_values
    assert [cache.get_seq_length(layer) for layer in range(4)] == [7] * 4
    assert cache.get_mask_sizes(3, 0) == (10, 0)
    assert MiniMaxVLCache.empty(4).get_seq_length() == 0
    empty = run(draw_ids(2, 7), past_key_values=MiniMaxVLCache.empty(4))
    assert torch.equal(empty.logits, run(draw_ids(2, 7)).logits)


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("chunk", [1, 3])
def test_padded_rows_are_read_and_continued_as_alone(side, chunk):
    lengths, width = [6, 9, 4], 9
    rows = [draw_ids(1, n, seed=n) for n in lengths]
    ids, mask = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
    for row, own in enumerate(rows):
        spare = width - own.shape[1]
        start = {"left": spare, "right": 0, "both": spare // 2}[side]
        ids[row, start : start + own.shape[1]] = own
        mask[row, start : start + own.shape[1]] = 1
    more = draw_ids(3, 6, seed=77)
    output = run(ids, attention_mask=mask)
    found = [output.logits[row][mask[row].bool()] for row in range(3)]
    after = []
    for part in more.split(chunk, dim=1):
        output = run(part, past_key_values=output.past_key_values)
        after.append(output.logits)
    for row, own in enumerate(rows):
        alone = run(torch.cat([own, more[row : row + 1]], 1)).logits[0]
        close(torch.cat([found[row], torch.cat(after, 1)[row]]), alone)


def test_gradients_of_branches_are_those_of_separate_rows():
    prefix, answers = draw_ids(1, 20), draw_ids(3, 6, seed=5)
    parameters = list(MODEL.parameters())

    def gradients(shared):
        if shared:
            cache = MODEL(prefix).past_key_values.expand(3)
            hidden = MODEL(answers[:, :2], past_key_values=cache)
            last = MODEL(answers[:, 2:], past_key_values=hidden.past_key_values)
            logits = torch.cat([hidden.logits, last.logits], 1)
        else:
            logits = MODEL(torch.cat([prefix.expand(3, -1), answers], 1)).logits[:, -6:]
        return torch.autograd.grad(logits.log_softmax(-1)[..., 3].sum(), parameters)

    for found, expected in zip(gradients(True), gradients(False), strict=True):
        assert (found - expected).abs().max() < 1e-5 * max(expected.abs().max(), 1.0)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(1, 30),
)
def test_packed_documents_equal_separate_rows_also_in_chunks(rows, chunk):
    width = max(sum(lengths) for lengths in rows)
    rows = [[*lengths[:-1], lengths[-1] + width - sum(lengths)] for lengths in rows]
    ids = draw_ids(len(rows), width)
    positions = torch.stack([torch.cat([torch.arange(n) for n in lengths]) for lengths in rows])
    logits, cache = [], None
    for part, places in zip(ids.split(chunk, 1), positions.split(chunk, 1), strict=True):
        output = run(part, position_ids=places, past_key_values=cache)
        cache = output.past_key_values
        logits.append(output.logits)
    found = torch.cat(logits, 1)
    for row, lengths in enumerate(rows):
        alone = [run(piece[None]).logits[0] for piece in ids[row].split(lengths)]
        close(found[row], torch.cat(alone))
    assert cache.num_tokens.tolist() == [lengths[-1] for lengths in rows]


def test_gradients_of_packed_documents_do_not_leak():
    ids = draw_ids(1, 12)
    embeds = MODEL.get_input_embeddings()(ids).detach().requires_grad_()
    positions = torch.tensor([[*range(5), *range(7)]])
    MODEL(inputs_embeds=embeds, position_ids=positions).logits[:, 5:].square().sum().backward()
    assert embeds.grad[:, :5].abs().max() == 0.0 and embeds.grad[:, 5:].abs().min() > 0.0


def test_positions_that_do_not_count_up_are_refused():
    with pytest.raises(ValueError, match="row 0, token 2: found 5, expected 2"):
        documents_of(torch.tensor([[0, 1, 5]]), None, None)
    left_padded = torch.tensor([[0, 0, 0, 1]]), torch.tensor([[False, False, True, True]])
    assert documents_of(*left_padded, None) is None
    goes_on = documents_of(torch.tensor([[7, 8, 0, 1]]), None, torch.tensor([7]))
    assert goes_on.tolist() == [[0, 0, 1, 1]]


def test_long_masked_rows_in_blocks_equal_one_large_mask():
    tokens, before = QUERY_BLOCK_TOKENS + 90, 37
    random = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, tokens, 8, generator=random)
    key, value = (torch.randn(1, 2, before + tokens, 8, generator=random) for _ in range(2))
    starts = torch.zeros(1, tokens, dtype=torch.long)
    starts[0, [200, QUERY_BLOCK_TOKENS - 3]] = 1
    documents = starts.cumsum(1)
    valid = torch.ones(1, tokens, dtype=torch.bool)
    reach = reach_of_chunk(valid, documents, torch.ones(1, before, dtype=torch.bool))
    assert reach.starts == (0, before + QUERY_BLOCK_TOKENS - 3)
    every = torch.cat([torch.zeros(1, before, dtype=torch.long), documents], 1)
    seen = documents[0, :, None] == every
    seen &= torch.arange(before + tokens) <= torch.arange(before, before + tokens)[:, None]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=seen, enable_gqa=True
    )
    close(attend(query, key, value, reach), expected)
