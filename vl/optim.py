"""Optimizers and learning-rate schedules: Muon for matrices of blocks, AdamW for the rest.

Source: Muon, Jordan et al. 2024 (momentum orthogonalised by Newton-Schulz); AdamW,
arXiv 1711.05101; betas and eps of the RL default as in the MiniMax-M1 report, section 3.2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """AdamW for every trained parameter."""

    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-15
    """MiniMax-M1's: gradients of RL spanned 1e-18 to 1e-5."""
    weight_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MuonConfig:
    """Muon for matrices of transformer blocks, AdamW for embeddings, norms, convolutions, head."""

    lr: float = 0.02
    momentum: float = 0.95
    num_newton_schulz_steps: int = 5
    adamw_lr: float = 2e-3
    adamw_betas: tuple[float, float] = (0.9, 0.95)


OptimizerConfig = AdamWConfig | MuonConfig


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up, constant, linear decay to zero; a factor on the learning rate."""

    warmup_steps: int = 10
    decay_frac: float = 0.3
    """Share of the run, at its end, over which the rate falls linearly; 0 = constant to the end."""

    def factor(self, progress: float, step: int) -> float:
        """Factor in [0, 1] for 0-based `step` at `progress` in [0, 1] of the run."""
        warm = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        if self.decay_frac <= 0.0:
            return warm
        return warm * min(1.0, max(0.0, (1.0 - progress) / self.decay_frac))


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is replaced by its nearest (semi-)orthogonal one.

    Parameters of one shape are orthogonalised in one batched call; leading dimensions of 3-D
    parameters (experts) count as separate matrices.
    """

    def __init__(self, params: Iterable[nn.Parameter], config: MuonConfig) -> None:
        super().__init__(list(params), {"lr": config.lr})
        self.config = config

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        del closure
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for param in group["params"]:
                if param.grad is not None:
                    rows, cols = param.shape[-2:]
                    by_shape[(rows, cols)].append(param)
            for (rows, cols), params in by_shape.items():
                self._update(params, rows, cols, group["lr"])

    def _update(self, params: list[nn.Parameter], rows: int, cols: int, lr: float) -> None:
        directions: list[Tensor] = []
        for param in params:
            assert param.grad is not None
            state = self.state[param]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(param)
            momentum = state["momentum"].lerp_(param.grad, 1.0 - self.config.momentum)
            nesterov = param.grad.lerp(momentum, self.config.momentum)
            directions.append(nesterov.reshape(-1, rows, cols))
        sizes = [len(direction) for direction in directions]
        updates = orthogonalise(torch.cat(directions), self.config.num_newton_schulz_steps)
        scale = lr * max(1.0, rows / cols) ** 0.5
        for param, update in zip(params, updates.split(sizes), strict=True):
            param.add_(update.view_as(param), alpha=-scale)


def orthogonalise(
    matrices: Float[Tensor, "matrix row col"], num_steps: int = 5
) -> Float[Tensor, "matrix row col"]:
    """Matrices with the same singular vectors and singular values near 1 (about 0.7 to 1.2)."""
    a, b, c = _QUINTIC
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.transpose(-1, -2)
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(num_steps):
        gram = x @ x.transpose(-1, -2)
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, poly, x, beta=a)
    return x if wide else x.transpose(-1, -2)


class Optimizers:
    """One or two optimizers driven as one; `set_factor` scales every base learning rate."""

    def __init__(self, model: nn.Module, config: OptimizerConfig) -> None:
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not trained:
            raise ValueError("no parameter is trained: every part of the model is frozen")
        self.params = [p for _, p in trained]
        self.parts: list[torch.optim.Optimizer] = []
        if isinstance(config, MuonConfig):
            matrices = [p for name, p in trained if is_block_matrix(name, p)]
            rest = [p for name, p in trained if not is_block_matrix(name, p)]
            if matrices:
                self.parts.append(Muon(matrices, config))
            if rest:
                adamw = torch.optim.AdamW(
                    rest, lr=config.adamw_lr, betas=config.adamw_betas, weight_decay=0.0
                )
                self.parts.append(adamw)
        else:
            self.parts.append(
                torch.optim.AdamW(
                    self.params,
                    lr=config.lr,
                    betas=config.betas,
                    eps=config.eps,
                    weight_decay=config.weight_decay,
                )
            )
        self._base = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def set_factor(self, factor: float) -> float:
        """Scales all learning rates; returns the first group's."""
        for part, rates in zip(self.parts, self._base, strict=True):
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        return self.parts[0].param_groups[0]["lr"]

    def step(self, max_grad_norm: float) -> float:
        """Clips the gradient's norm, updates, clears; returns the norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.params, max_grad_norm)
        if not torch.isfinite(norm):
            self.zero_grad()
            raise FloatingPointError(
                f"gradient norm is {norm.item()}: lower the learning rate or resume from the "
                "checkpoint before this step"
            )
        for part in self.parts:
            part.step()
        self.zero_grad()
        return float(norm)

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """State of every part, for a checkpoint."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Restores what `state_dict` gave."""
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def is_block_matrix(name: str, param: Tensor) -> bool:
    """True for weights of transformer blocks and the projector: what Muon is meant for."""
    if param.ndim < 2 or "block_sparse_moe.gate" in name:
        return False
    inside = ".layers." in name or "multi_modal_projector." in name
    return inside and (param.ndim == 2 or "experts" in name)
