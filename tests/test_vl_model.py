"""The model: caches, padding, branches, generation, saving, and the errors a user meets."""

import pytest
import torch
from tiny_vl import SIZE_PX, picture_of_noise, tiny_policy
from transformers import AutoModelForImageTextToText, AutoProcessor

from recipes.orsta_tiny import orsta_tiny
from recipes.prepare import build_policy
from vl.atomic import write_folder
from vl.corpus import Corpus
from vl.models.minimax_vl import MiniMaxVLConfig, MiniMaxVLTextConfig

POLICY = tiny_policy()
MODEL, PROCESSOR = POLICY.model, POLICY.processor
TEXT = "<beginning_of_sentence>user\n<image>{}<end_of_sentence><beginning_of_sentence>assistant\n"
QUESTIONS = ("where is the red dog?", "read the word", "x")


def inputs(*questions, padding_side="left"):
    PROCESSOR.tokenizer.padding_side = padding_side
    found = PROCESSOR(
        [picture_of_noise(i) for i, _ in enumerate(questions)],
        [TEXT.format(question) for question in questions],
    )
    PROCESSOR.tokenizer.padding_side = "left"
    return found


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@torch.no_grad()
def test_decoding_token_by_token_equals_one_forward_pass():
    batch = inputs(QUESTIONS[0])
    whole = MODEL(**batch).logits
    embeds = MODEL.embed(batch.input_ids, MODEL.image_features(batch.pixel_values))
    cache, steps = None, []
    for t in range(embeds.shape[1]):
        output = MODEL.decode(embeds[:, t : t + 1], None, cache)
        cache = output.cache
        steps.append(MODEL.logits(output.hidden))
    close(torch.cat(steps, 1), whole)
    assert cache.num_tokens.tolist() == [embeds.shape[1]]


@torch.no_grad()
@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_a_padded_batch_equals_its_rows_alone(padding_side):
    batch = inputs(*QUESTIONS, padding_side=padding_side)
    logits = MODEL(**batch).logits
    assert not bool(batch.attention_mask.all())
    for row in range(len(QUESTIONS)):
        places = batch.attention_mask[row].bool()
        alone = MODEL(
            batch.input_ids[row, places][None], pixel_values=batch.pixel_values[row : row + 1]
        )
        close(logits[row, places], alone.logits[0])


@torch.no_grad()
def greedy_without_cache(ids, pixels, num_tokens):
    for _ in range(num_tokens):
        logits = MODEL(ids, pixel_values=pixels).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1)[:, None]], 1)
    return ids


def generate(batch, **options):
    settings = {"do_sample": False, "max_new_tokens": 10, "eos_token_id": None, **options}
    settings["pad_token_id"] = PROCESSOR.tokenizer.pad_token_id
    return MODEL.generate(**batch, **settings)


def test_greedy_generation_of_a_padded_batch_equals_a_loop_without_cache():
    batch = inputs(*QUESTIONS)
    found = generate(batch)
    for row in range(len(QUESTIONS)):
        places = batch.attention_mask[row].bool()
        ids = batch.input_ids[row, places][None]
        expected = greedy_without_cache(ids, batch.pixel_values[row : row + 1], 10)
        assert (
            found[row, batch.input_ids.shape[1] :].tolist() == expected[0, ids.shape[1] :].tolist()
        )


@torch.no_grad()
def beam_search_without_cache(ids, pixels, width, num_tokens):
    rows, scores = ids, torch.zeros(1)
    for _ in range(num_tokens):
        logprobs = MODEL(rows, pixel_values=pixels.expand(len(rows), -1, -1, -1)).logits[:, -1]
        every = scores[:, None] + logprobs.log_softmax(-1)
        scores, flat = every.flatten().topk(width)
        beams, tokens = flat // every.shape[1], flat % every.shape[1]
        rows = torch.cat([rows[beams], tokens[:, None]], 1)
    return rows


def test_beam_search_equals_one_without_cache():
    batch = inputs(QUESTIONS[0])
    with torch.no_grad():  # sharper logits, so that beams part and cross
        MODEL.language_model.lm_head.weight.mul_(3.0)
    try:
        found = generate(batch, num_beams=3, num_return_sequences=3, max_new_tokens=8)
        wanted = beam_search_without_cache(batch.input_ids, batch.pixel_values, 3, 8)
        assert found.tolist() == wanted.tolist()
    finally:
        with torch.no_grad():
            MODEL.language_model.lm_head.weight.div_(3.0)


def test_gradients_through_an_expanded_cache_are_those_of_separate_rows():
    batch = inputs(QUESTIONS[0])
    more = torch.tensor([[40, 41, 42], [50, 51, 52]])
    parameters = [p for p in MODEL.parameters() if p.requires_grad]

    def gradients(shared):
        features = MODEL.image_features(batch.pixel_values)
        if shared:
            prefix = MODEL.decode(MODEL.embed(batch.input_ids, features)).cache
            hidden = MODEL.decode(MODEL.embed(more), None, prefix.expand(2)).hidden
        else:
            rows = torch.cat([batch.input_ids.expand(2, -1), more], 1)
            embeds = MODEL.embed(rows, features.expand(2, -1, -1))
            hidden = MODEL.decode(embeds).hidden[:, -3:]
        loss = MODEL.logits(hidden).log_softmax(-1)[:, :, 7].sum()
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    for found, expected in zip(gradients(True), gradients(False), strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            close(found, expected, 1e-4)


def test_expand_repeats_each_row_next_to_itself_and_select_takes_rows():
    batch = inputs(*QUESTIONS)
    features = MODEL.image_features(batch.pixel_values)
    cache = MODEL.decode(MODEL.embed(batch.input_ids, features), batch.attention_mask.bool()).cache
    wide = cache.expand(2)
    again = cache.select(torch.tensor([0, 0, 1, 1, 2, 2]))
    assert torch.equal(wide.valid, again.valid)
    for one, other in zip(wide.layers, again.layers, strict=True):
        for name in ("state", "key", "value"):
            found, expected = getattr(one, name), getattr(other, name)
            assert (found is None and expected is None) or torch.equal(found, expected)


@torch.no_grad()
def test_a_saved_model_comes_back_through_the_auto_classes(tmp_path):
    batch = inputs(*QUESTIONS)
    write_folder(tmp_path / "model", POLICY.save)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    texts = [TEXT.format(question) for question in QUESTIONS]
    again = processor([picture_of_noise(i) for i in range(3)], texts)
    assert torch.equal(again.input_ids, batch.input_ids)
    assert torch.equal(again.pixel_values, batch.pixel_values)
    assert torch.equal(model(**again).logits, MODEL(**batch).logits)
    assert processor.num_image_tokens == 4 and processor.coordinate_space == "per_mille"
    assert not (tmp_path / "model.part").exists()


def test_a_failed_save_leaves_the_earlier_model(tmp_path, monkeypatch):
    write_folder(tmp_path / "model", POLICY.save)
    before = sorted(path.name for path in (tmp_path / "model").iterdir())
    monkeypatch.setattr(type(PROCESSOR), "save_pretrained", lambda self, path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_folder(tmp_path / "model", POLICY.save)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == before


def test_the_tiny_recipe_has_two_to_five_million_parameters():
    nothing = Corpus(pictures=())
    policy = build_policy(orsta_tiny().model, nothing)
    assert 2e6 < sum(param.numel() for param in policy.model.parameters()) < 5e6


def test_labels_give_the_mean_cross_entropy_and_the_weighted_balancing_loss():
    batch = inputs(QUESTIONS[0])
    labels = batch.input_ids.clone()
    labels[:, :6] = -100
    output = MODEL(**batch, labels=labels)
    logprobs = output.logits.log_softmax(-1)[0]
    picked = [logprobs[t - 1, labels[0, t]] for t in range(6, labels.shape[1])]
    weight = MODEL.config.text_config.router_aux_loss_coef
    close(output.loss, -torch.stack(picked).mean() + weight * output.aux_loss)


def test_too_few_image_tokens_are_refused():
    batch = inputs(QUESTIONS[0])
    with pytest.raises(ValueError, match="holds 4 image tokens, the pictures give 8"):
        MODEL(batch.input_ids, pixel_values=batch.pixel_values.expand(2, -1, -1, -1))
    with pytest.raises(ValueError, match="holds 4 image tokens, the pictures give 0"):
        MODEL(batch.input_ids)


def test_a_text_with_other_markers_than_pictures_is_refused():
    with pytest.raises(ValueError, match="2 <image> markers for 1 pictures"):
        PROCESSOR(picture_of_noise(0), "<image><image>")
    with pytest.raises(ValueError, match="0 <image> markers for 1 pictures"):
        PROCESSOR(picture_of_noise(0), "none")


def test_the_chat_template_writes_what_the_trainer_reads():
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "hi"}]}]
    assert PROCESSOR.apply_chat_template(messages, add_generation_prompt=True) == TEXT.format("hi")


def test_a_processor_of_another_model_is_refused():
    other = type(PROCESSOR)(PROCESSOR.image_processor, PROCESSOR.tokenizer, num_image_tokens=9)
    with pytest.raises(ValueError, match="9 image tokens a picture, the model makes 4"):
        type(POLICY).build(MODEL, other)


def test_pictures_of_any_size_and_mode_become_normalised_squares():
    picture = picture_of_noise(0).convert("L").resize((7, 50))
    pixels = PROCESSOR.image_processor(picture).pixel_values
    assert pixels.shape == (1, 3, SIZE_PX, SIZE_PX)
    white = PROCESSOR.image_processor.normalise(torch.full((1, 1, 1, 3), 255))
    close(
        white.flatten(),
        (1 - torch.tensor([0.48145466, 0.4578275, 0.40821073]))
        / torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )


def test_settings_without_meaning_are_refused():
    for options, message in (
        ({"attn_type_list": [0, 2], "num_hidden_layers": 2}, "attn_type_list"),
        ({"attn_type_list": [0], "num_hidden_layers": 2}, "each of the 2 layers"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: 3 does not divide"),
        ({"rotary_dim": 5}, "rotary_dim: 5"),
    ):
        with pytest.raises(ValueError, match=message):
            MiniMaxVLTextConfig(**options)
    with pytest.raises(ValueError, match="stem_channels: 2 stride-2"):
        MiniMaxVLConfig(vision_config={"stem_channels": [8, 8]})
    with pytest.raises(ValueError, match="spatial_merge_size: 3"):
        MiniMaxVLConfig(spatial_merge_size=3)
