"""Our lightning attention layer beside transformers', same weights, CPU milliseconds.

python benchmarks/lightning.py [--tokens 1024 4096 16384] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import MiniMaxConfig
from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

from vl.models.minimax_vl.configuration import MiniMaxVLTextConfig
from vl.models.minimax_vl.text import LightningAttention, Positions

HIDDEN, HEADS, HEAD_DIM, LAYERS = 256, 4, 64, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096, 16384])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    theirs, ours = layers()
    print(f"{'tokens':>7} {'pass':>17} {'transformers':>13} {'ours':>8} {'ratio':>7}")
    for tokens in options.tokens:
        hidden = torch.randn(1, tokens, HIDDEN, requires_grad=True)
        for name, run in (("forward", forward), ("forward, backward", backward)):
            pairs = [(run(theirs, hidden), run(ours, hidden)) for _ in range(options.rounds)]
            medians = [1e3 * statistics.median(pair[side] for pair in pairs) for side in (0, 1)]
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"{tokens:7} {name:>17} {medians[0]:10.1f} ms {medians[1]:5.1f} ms {ratio:6.2f}x")


def layers() -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Both layers as functions of the hidden states; they agree to 1e-5."""
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
    config = MiniMaxVLTextConfig(
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HEAD_DIM,
        num_hidden_layers=LAYERS,
        attn_type_list=[0] * (LAYERS - 1) + [1],
    )
    ours = LightningAttention(config, 0)
    state = theirs.state_dict()
    ours.load_state_dict({name: state[name] for name in ours.state_dict()})

    def run_theirs(hidden: Tensor) -> Tensor:
        return theirs(hidden_states=hidden, position_embeddings=None, attention_mask=None)[0]

    def run_ours(hidden: Tensor) -> Tensor:
        valid = torch.ones(hidden.shape[:2], dtype=torch.bool)
        none = torch.empty(0)
        return ours(hidden, Positions(valid, True, None, none, none), None)[0]

    probe = torch.randn(1, 300, HIDDEN)
    torch.testing.assert_close(run_ours(probe), run_theirs(probe), rtol=1e-5, atol=1e-5)
    return run_theirs, run_ours


def forward(run: Callable[[Tensor], Tensor], hidden: Tensor) -> float:
    started = time.process_time()
    with torch.no_grad():
        run(hidden)
    return time.process_time() - started


def backward(run: Callable[[Tensor], Tensor], hidden: Tensor) -> float:
    started = time.process_time()
    run(hidden).sum().backward()
    return time.process_time() - started


if __name__ == "__main__":
    main()
