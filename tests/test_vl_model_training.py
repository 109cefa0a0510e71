"""Training: checkpointed, compiled and adapted models compute the same as plain ones."""

import copy

import peft
import pytest
import torch
from tiny_vl import tiny_policy

from vl.models.minimax_vl.interchange import text_part
from vl.models.minimax_vl.moe import load_balancing_loss

POLICY = tiny_policy(num_local_experts=3)
MODEL = POLICY.model
IMAGE = MODEL.config.image_token_index


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 90, (2, 12), generator=generator)
    ids[:, 1:5] = IMAGE
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    labels = ids.masked_fill((ids == IMAGE) | (mask == 0), -100)
    pixels = torch.randn(2, 3, 32, 32, generator=generator)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "pixel_values": pixels,
        "use_cache": False,
    }


def gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers_give_the_same_loss_and_gradients(batch, reentrant):
    model = copy.deepcopy(MODEL).train()
    expected = gradients(model, batch)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    calls = []
    layers = (
        model.language_model.model.layers[0],
        model.vision_tower.vision_model.encoder.layers[0],
    )
    for layer in layers:
        layer.self_attn.register_forward_pre_hook(lambda module, _: calls.append(type(module)))
    batch["pixel_values"].requires_grad_()  # the reentrant kind needs an input with a gradient
    found = gradients(model, batch)
    names = [kind.__name__ for kind in calls]
    assert names.count("LightningAttention") == 2  # forward, and again for the backward
    assert names.count("VisionAttention") == 2
    assert found[0] == expected[0]
    tolerance = 1e-4 if reentrant else 0.0  # that kind adds gradients up in another order
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=tolerance, atol=tolerance)


def test_the_loss_of_micro_batches_adds_up_to_that_of_the_batch(batch):
    batch["attention_mask"] = None
    labels = batch["labels"]
    trained = (labels[:, 1:] != -100).sum()
    whole = MODEL(**batch)
    parts = [
        MODEL(
            **{k: v[row : row + 1] if isinstance(v, torch.Tensor) else v for k, v in batch.items()},
            num_items_in_batch=trained,
        )
        for row in range(2)
    ]
    weight = MODEL.config.text_config.router_aux_loss_coef
    nll = [part.loss - weight * part.aux_loss for part in parts]
    expected = whole.loss - weight * whole.aux_loss
    torch.testing.assert_close(nll[0] + nll[1], expected, rtol=1e-5, atol=1e-6)


def test_router_logits_and_their_loss_are_returned_when_asked_for(batch):
    batch.pop("labels")
    plain = MODEL(**batch)
    assert plain.aux_loss is None and plain.router_logits is None and plain.dropped_frac is None
    asked = MODEL(**batch, output_router_logits=True)
    assert [tuple(one.shape) for one in asked.router_logits] == [(24, 3)] * 3
    row = MODEL(
        batch["input_ids"][1:, :9],
        pixel_values=batch["pixel_values"][1:],
        output_router_logits=True,
    )
    first = MODEL(
        batch["input_ids"][:1], pixel_values=batch["pixel_values"][:1], output_router_logits=True
    )
    together = [torch.cat(two) for two in zip(first.router_logits, row.router_logits, strict=True)]
    real = batch["attention_mask"].flatten().bool()
    for one, other in zip(asked.router_logits, together, strict=True):
        torch.testing.assert_close(one[real], other, rtol=1e-5, atol=1e-5)
    expected = load_balancing_loss(torch.stack(together).softmax(-1), 2)  # padding left out
    torch.testing.assert_close(asked.aux_loss, expected, rtol=1e-5, atol=1e-5)
    assert isinstance(MODEL(**batch, return_dict=False), tuple)
    with pytest.raises(ValueError, match="output_hidden_states=True"):
        MODEL(**batch, output_hidden_states=True)


def test_a_capacity_drops_tokens_in_training_and_the_model_says_how_many(batch):
    policy = tiny_policy(router_capacity_factor=0.5)
    dropped = policy.model.train()(**batch).dropped_frac
    assert 0.2 < dropped.item() < 0.8
    assert policy.model.eval()(**batch).dropped_frac is None


def test_a_head_in_the_models_own_type_is_a_choice():
    hidden = torch.randn(3, 32, dtype=torch.bfloat16)
    exact = copy.deepcopy(MODEL).to(torch.bfloat16)
    weight = exact.language_model.lm_head.weight
    found = exact.logits(hidden)
    assert found.dtype == torch.float32
    assert torch.equal(found, hidden.float() @ weight.float().T)
    exact.config.text_config.lm_head_fp32 = False
    assert exact.logits(hidden).dtype == torch.bfloat16


def test_autocast_lowers_neither_the_head_nor_the_router(batch):
    model = copy.deepcopy(MODEL)
    seen = []
    for module in (model.language_model.lm_head, layer_of(model).block_sparse_moe.gate):
        module.register_forward_hook(lambda m, args, out: seen.append((m, args[0], out)))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(**batch).logits.dtype == torch.float32
    assert len(seen) == 2
    for module, hidden, found in seen:
        assert torch.equal(found, hidden.float() @ module.weight.T)


def layer_of(model):
    return model.language_model.model.layers[0]


def test_a_resized_vocabulary_keeps_the_head_exact(batch):
    batch.pop("labels")
    model = copy.deepcopy(MODEL)
    size = model.config.text_config.vocab_size
    model.resize_token_embeddings(size + 8, mean_resizing=False)
    found = model(**batch).logits
    assert found.shape[-1] == size + 8 == model.config.text_config.vocab_size
    assert torch.equal(found[..., :size], MODEL(**batch).logits)
    assert model.to(torch.bfloat16)(**batch).logits.dtype == torch.float32


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_adapters_on_all_linear_layers_train_the_router_too(batch):
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(copy.deepcopy(MODEL), config)
    adapted(**batch).loss.backward()
    trained = {name: param for name, param in adapted.named_parameters() if param.requires_grad}
    assert any(".block_sparse_moe.gate.lora_A" in name for name in trained)
    assert not [name for name, param in trained.items() if param.grad is None]


@pytest.mark.parametrize("postnorm", [True, False])
def test_the_residual_weights_enter_as_configured(postnorm):
    weights = {
        "layernorm_linear_attention_alpha": 1.5,
        "layernorm_linear_attention_beta": 0.7,
        "layernorm_full_attention_alpha": 2.5,
        "layernorm_full_attention_beta": 0.6,
        "layernorm_mlp_alpha": 1.25,
        "layernorm_mlp_beta": 0.8,
    }
    decoder = tiny_policy(postnorm=postnorm, **weights).model.language_model.model
    hidden = torch.randn(1, 6, 32)
    positions = decoder._positions(hidden, None, None, None)
    for number, kind in enumerate(("linear", "full")):
        layer = decoder.layers[number]
        alpha = weights[f"layernorm_{kind}_attention_alpha"]
        beta = weights[f"layernorm_{kind}_attention_beta"]
        normed = layer.input_layernorm(hidden)
        attended = layer.self_attn(normed, positions, None)[0]
        middle = alpha * (normed if postnorm else hidden) + beta * attended
        normed = layer.post_attention_layernorm(middle)
        added = layer.block_sparse_moe(normed[0]).hidden
        expected = 1.25 * (normed if postnorm else middle) + 0.8 * added
        found = layer(hidden, positions, None)[0]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_adapters_on_both_kinds_of_attention_train_and_merge(batch):
    model = copy.deepcopy(MODEL).eval()
    config = peft.LoraConfig(
        r=2, target_modules=r"language_model\..*\.(qkv_proj|out_proj|q_proj|v_proj)"
    )
    adapted = peft.get_peft_model(model, config)
    trained = [name for name, param in adapted.named_parameters() if param.requires_grad]
    kinds = {name.split(".lora_")[0].split(".")[-1] for name in trained}
    assert kinds == {"qkv_proj", "out_proj", "q_proj", "v_proj"}
    assert all(".language_model." in name for name in trained)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.5)
    losses = []
    for _ in range(4):
        loss = adapted(**batch).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.01
    found = adapted(**batch).logits
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(merged(**batch).logits, found, rtol=1e-4, atol=1e-4)
    assert {n for n, _ in merged.named_parameters()} == {n for n, _ in MODEL.named_parameters()}


@torch.no_grad()
def test_a_compiled_decoder_gives_the_same_logits(batch):
    # traced by dynamo and run as it is: a code generator would need a compiler and half a minute
    torch.compiler.reset()
    decoder = text_part(MODEL).eval()
    compiled = torch.compile(decoder, backend="eager")
    ids = batch["input_ids"]
    found, expected = compiled(ids, labels=ids), decoder(ids, labels=ids)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=1e-5)
