"""MiniMax-VL's decoder beside transformers' classes of the same size: CPU time and memory.

python benchmarks/model.py layer   [--tokens 1024 4096 16384 32768] [--rounds 5]
python benchmarks/model.py prefill [--tokens 1024 4096 16384] [--rounds 3]
python benchmarks/model.py decode  [--tokens 1024 4096 16384 32768] [--rounds 20]
python benchmarks/model.py train   [--tokens 1024 4096] [--rounds 3]

`layer`: our lightning layer beside transformers' MiniMaxLightningAttention, same weights.
The others: 8 layers, 7 lightning and 1 softmax, beside LlamaForCausalLM, 7.4 million weights each.
One thread, process CPU time, both sides in alternation; medians, and the median of the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, MiniMaxConfig
from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

from vl.models.minimax_vl import MiniMaxTextForCausalLM, MiniMaxVLCache, MiniMaxVLTextConfig
from vl.models.minimax_vl.cache import LayerState
from vl.models.minimax_vl.text import LightningAttention, Positions

HIDDEN, HEADS, HEAD_DIM, LAYERS, VOCAB = 256, 4, 64, 8, 1024
PLAIN = Positions(None, None, None, torch.empty(0), torch.empty(0))
TOKENS = {
    "layer": [1024, 4096, 16384, 32768],
    "prefill": [1024, 4096, 16384],
    "decode": [1024, 4096, 16384, 32768],
    "train": [1024, 4096],
}
ROUNDS = {"layer": 5, "prefill": 3, "decode": 20, "train": 3}

Run = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=list(TOKENS))
    parser.add_argument("--tokens", type=int, nargs="+")
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    measure = {"layer": layer, "prefill": prefill, "decode": decode, "train": train}[options.what]
    print(f"{'tokens':>7} {'pass':>18} {'theirs':>12} {'ours':>12} {'ratio':>7}")
    rounds = options.rounds or ROUNDS[options.what]
    for tokens in options.tokens or TOKENS[options.what]:
        measure(tokens, rounds)


def compare(tokens: int, name: str, theirs: Run, ours: Run, rounds: int) -> None:
    """Runs both in turn, once unmeasured, and prints a line."""
    theirs(), ours()
    pairs = [(cpu_ms(theirs), cpu_ms(ours)) for _ in range(rounds)]
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{tokens:7} {name:>18} {medians[0]:9.1f} ms {medians[1]:9.1f} ms {ratio:6.2f}x")


def cpu_ms(run: Run) -> float:
    started = time.process_time()
    run()
    return 1e3 * (time.process_time() - started)


def layer(tokens: int, rounds: int) -> None:
    theirs, ours = lightning_layers()
    hidden = torch.randn(1, tokens, HIDDEN, requires_grad=True)

    def their_pass() -> Tensor:
        return theirs(hidden_states=hidden, position_embeddings=None, attention_mask=None)[0]

    def our_pass() -> Tensor:
        return ours(hidden, PLAIN, None)[0]

    torch.testing.assert_close(our_pass(), their_pass(), rtol=1e-4, atol=1e-5)
    compare(tokens, "forward", no_grad(their_pass), no_grad(our_pass), rounds)
    backward = (lambda: their_pass().sum().backward(), lambda: our_pass().sum().backward())
    compare(tokens, "forward, backward", *backward, rounds)
    kept = kept_mb(their_pass), kept_mb(our_pass)
    print(f"{tokens:7} {'kept for backward':>18} {kept[0]:9.1f} MB {kept[1]:9.1f} MB")


def lightning_layers() -> tuple[MiniMaxLightningAttention, LightningAttention]:
    pattern = ["linear_attention"] * (LAYERS - 1) + ["full_attention"]
    theirs = MiniMaxLightningAttention(
        MiniMaxConfig(
            hidden_size=HIDDEN,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            head_dim=HEAD_DIM,
            num_hidden_layers=LAYERS,
            layer_types=pattern,
            num_local_experts=1,
        ),
        0,
    )
    ours = LightningAttention(text_config(), 0)
    state = theirs.state_dict()
    ours.load_state_dict({name: state[name] for name in ours.state_dict()})
    return theirs, ours


def text_config() -> MiniMaxVLTextConfig:
    return MiniMaxVLTextConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=704,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HEAD_DIM,
        rotary_dim=HEAD_DIM,
        attn_type_list=[0] * (LAYERS - 1) + [1],
        num_local_experts=1,
        num_experts_per_tok=1,
    )


def models() -> tuple[LlamaForCausalLM, MiniMaxTextForCausalLM]:
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=HIDDEN,
            intermediate_size=776,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=131_072,
        )
    ).eval()
    return llama, MiniMaxTextForCausalLM(text_config()).eval()


def prefill(tokens: int, rounds: int) -> None:
    theirs, ours = models()
    ids = torch.randint(VOCAB, (1, tokens))

    def run(model: nn.Module) -> Run:
        return no_grad(lambda: model(ids, logits_to_keep=1, use_cache=True))

    compare(tokens, "prefill", run(theirs), run(ours), rounds)


def train(tokens: int, rounds: int) -> None:
    theirs, ours = models()
    ids = torch.randint(VOCAB, (1, tokens))

    def run(model: nn.Module) -> Run:
        return lambda: model(ids, labels=ids, use_cache=False).loss.backward()

    compare(tokens, "forward, backward", run(theirs), run(ours), rounds)


def decode(tokens: int, rounds: int) -> None:
    """One token after a cache of `tokens` with drawn content, then one after that, and so on."""
    llama, hybrid = models()
    ids = torch.randint(VOCAB, (1, 1))
    read = DynamicCache(config=llama.config)
    for index in range(LAYERS):
        drawn = torch.randn(2, 1, HEADS, tokens, HEAD_DIM)
        read.update(drawn[0], drawn[1], index)
    cache = drawn_cache(tokens)

    def ours() -> None:
        nonlocal cache
        cache = hybrid(ids, past_key_values=cache).past_key_values

    theirs = no_grad(lambda: llama(ids, past_key_values=read, use_cache=True))
    compare(tokens, "decode one token", theirs, no_grad(ours), rounds)
    state = LayerState(state=torch.randn(1, HEADS, HEAD_DIM, HEAD_DIM))
    lightning = hybrid.model.layers[0].self_attn
    hidden = torch.randn(1, 1, HIDDEN)

    @torch.no_grad()
    def steps() -> None:
        nonlocal state
        for _ in range(50):
            state = lightning(hidden, PLAIN, state)[1]

    steps()
    one = statistics.median(cpu_ms(steps) for _ in range(11)) / 50
    size_kb = state.state.untyped_storage().nbytes() / 1e3
    print(f"{tokens:7} lightning layer alone: {one:.3f} ms a token, state {size_kb:.0f} kB")


def drawn_cache(tokens: int) -> MiniMaxVLCache:
    drawn = torch.randn(2, 1, HEADS, tokens, HEAD_DIM)
    lightning = LayerState(state=torch.randn(1, HEADS, HEAD_DIM, HEAD_DIM))
    return MiniMaxVLCache(
        layers=(lightning,) * (LAYERS - 1) + (LayerState(key=drawn[0], value=drawn[1]),),
        valid=torch.ones(1, tokens, dtype=torch.bool),
        all_valid=True,
    )


def no_grad(run: Run) -> Run:
    return torch.no_grad()(run)


def kept_mb(run: Run) -> float:
    """Megabytes of tensors kept for the backward pass, weights left out, each storage once."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = run()
    del output
    return sum(storages.values()) / 1e6


if __name__ == "__main__":
    main()
