"""MiniMax-Text written a second time, from its formulas, with token x token matrices and loops."""

from __future__ import annotations

import torch

from vl.models.minimax_vl import MiniMaxTextForCausalLM, MiniMaxVLTextConfig

VOCAB = 97


def tiny_text(seed=0, **overrides) -> MiniMaxTextForCausalLM:
    """Four layers, three lightning and one softmax, in eval mode; weights of deviation 0.1."""
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 24,
        "num_hidden_layers": 4,
        "attn_type_list": [0, 0, 1, 0],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rotary_dim": 4,
        "lightning_block_tokens": 8,
        "initializer_range": 0.1,
        "eos_token_id": None,
        "pad_token_id": 0,
        **overrides,
    }
    torch.manual_seed(seed)
    return MiniMaxTextForCausalLM(MiniMaxVLTextConfig(**settings)).eval()


def draw_ids(*shape, seed=1):
    return torch.randint(1, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def rms_norm(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def lightning(x, weights, config, layer):
    tokens, heads, dim = len(x), config.num_attention_heads, config.head_dim
    qkv = torch.nn.functional.silu(x @ weights["qkv_proj.weight"].T).view(tokens, heads, 3, dim)
    gap = torch.arange(tokens)[:, None] - torch.arange(tokens)
    outputs = []
    for head in range(heads):  # a power of two of them
        rate = 2 ** (-8 * (head + 1) / heads)
        rate *= 1 - layer / (config.num_hidden_layers - 1) + 1e-5
        decay = torch.exp(-rate * gap.to(x.dtype)).masked_fill(gap < 0, 0.0)
        query, key, value = qkv[:, head].unbind(1)
        outputs.append((query @ key.T * decay) @ value)
    mixed = rms_norm(torch.cat(outputs, -1), weights["norm.weight"], 1e-6)
    gate = torch.sigmoid(x @ weights["output_gate.weight"].T)
    return (gate * mixed) @ weights["out_proj.weight"].T


def softmax(x, weights, config):
    tokens, dim, rotary = len(x), config.head_dim, config.rotary_dim
    rate = config.rope_theta ** (-torch.arange(0, rotary, 2, dtype=x.dtype) / rotary)
    angle = torch.arange(tokens, dtype=x.dtype)[:, None] * rate
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]

    def rotated(heads):
        first, second = heads[..., : rotary // 2], heads[..., rotary // 2 : rotary]
        turned = [first * cos - second * sin, second * cos + first * sin, heads[..., rotary:]]
        return torch.cat(turned, -1)

    query, key, value = (
        (x @ weights[f"{name}_proj.weight"].T).view(tokens, -1, dim) for name in "qkv"
    )
    query, key = rotated(query), rotated(key)
    group = config.num_attention_heads // config.num_key_value_heads
    future = torch.ones(tokens, tokens).triu(1).bool()
    outputs = []
    for head in range(config.num_attention_heads):
        scores = query[:, head] @ key[:, head // group].T / dim**0.5
        shares = scores.masked_fill(future, -torch.inf).softmax(-1)
        outputs.append(shares @ value[:, head // group])
    return torch.cat(outputs, -1) @ weights["o_proj.weight"].T


def experts(x, weights, config):
    probs = (x @ weights["gate.weight"].T).softmax(-1)
    outputs = []
    for token, prob in zip(x, probs, strict=True):
        best = prob.topk(config.num_experts_per_tok)
        total = torch.zeros_like(token)
        for share, expert in zip(best.values / best.values.sum(), best.indices, strict=True):
            gate, up = (weights["experts.gate_up_proj"][expert] @ token).chunk(2)
            hidden = torch.nn.functional.silu(gate) * up
            total = total + share * (weights["experts.down_proj"][expert] @ hidden)
        outputs.append(total)
    return torch.stack(outputs)


def part_of(weights, prefix):
    return {name.removeprefix(prefix): x for name, x in weights.items() if name.startswith(prefix)}


def naive_logits(model, ids, dtype=torch.float64):
    """(token, vocab) next-token logits of one row of ids, from the model's weights."""
    config = model.config
    weights = {name: x.detach().to(dtype) for name, x in model.state_dict().items()}
    x = weights["model.embed_tokens.weight"][ids]
    eps = config.rms_norm_eps
    for layer, kind in enumerate(config.attn_type_list):
        own = part_of(weights, f"model.layers.{layer}.")
        attention = part_of(own, "self_attn.")
        x = rms_norm(x, own["input_layernorm.weight"], eps)
        if kind == 0:
            alpha, added = (
                config.layernorm_linear_attention_alpha,
                lightning(x, attention, config, layer),
            )
        else:
            alpha, added = config.layernorm_full_attention_alpha, softmax(x, attention, config)
        x = rms_norm(alpha * x + added, own["post_attention_layernorm.weight"], eps)
        added = experts(x, part_of(own, "block_sparse_moe."), config)
        x = config.layernorm_mlp_alpha * x + added
    x = rms_norm(x, weights["model.norm.weight"], eps)
    return x @ weights["lm_head.weight"].T
