"""Optimizers and learning-rate schedules: Muon for matrices of blocks, AdamW for the rest.

Source: Muon, Jordan et al. 2024 (momentum orthogonalised by Newton-Schulz); AdamW,
arXiv 1711.05101; betas and eps of the RL default as in the MiniMax-M1 report, section 3.2.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .parts import BASE_RATES, OTHER, PartRates, Prefixes, part_of

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
    """Linear warm-up, constant, then a fall; a factor on every learning rate.

    `decay_frac` 0 is constant after the warm-up, 1 falls all the way, as the usual linear and
    cosine schedules do.
    """

    warmup_steps: int = 10
    decay_frac: float = 0.3
    """Share of the run, at its end, over which the rate falls; 0 = constant to the end."""
    shape: Literal["linear", "cosine"] = "linear"
    """How it falls: straight, or as half a wave of the cosine."""
    min_factor: float = 0.0
    """Factor that it falls to, in [0, 1]."""

    def __post_init__(self) -> None:
        """Refuses settings out of range."""
        if self.warmup_steps < 0 or not 0.0 <= self.decay_frac <= 1.0:
            raise ValueError(
                f"Schedule: found warmup_steps {self.warmup_steps!r} and decay_frac "
                f"{self.decay_frac!r}; steps are 0 or more, a share is in [0, 1]"
            )
        if not 0.0 <= self.min_factor <= 1.0:
            raise ValueError(f"Schedule.min_factor: found {self.min_factor!r}; use 0 to 1")

    def factor(self, progress: float, step: int) -> float:
        """Factor in [0, 1] for 0-based `step` at `progress` in [0, 1] of the run."""
        warm = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        if self.decay_frac <= 0.0:
            return warm
        left = min(1.0, max(0.0, (1.0 - progress) / self.decay_frac))
        if self.shape == "cosine":
            left = 0.5 - 0.5 * math.cos(math.pi * left)
        return warm * (self.min_factor + (1.0 - self.min_factor) * left)


class NonFiniteGradient(FloatingPointError):
    """A gradient is no number; nothing was changed by it."""


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is replaced by its nearest (semi-)orthogonal one.

    Parameters of one shape are orthogonalised in one batched call; leading dimensions of 3-D
    parameters (experts) count as separate matrices.
    """

    def __init__(
        self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], config: MuonConfig
    ) -> None:
        super().__init__(params, {"lr": config.lr})
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
    """One or two optimizers driven as one; `set_factor` scales every base learning rate.

    Weights of 16 bits are updated on copies of 32, which they are rounded from after each step: an
    update at a rate of 1e-6 is less than their last digit.

    Args:
        parts: part -> leading pieces of parameter names (`Policy.parts`); each part then has
            parameter groups, and a gradient norm, of its own. None = one group an optimizer.
        part_rates: peak rates of single parts. Muon's matrices take them; AdamW beside it is scaled
            by as much.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        *,
        parts: Prefixes | None = None,
        part_rates: PartRates = BASE_RATES,
    ) -> None:
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not trained:
            raise ValueError("no parameter is trained: every part of the model is frozen")
        if parts is None and part_rates != BASE_RATES:
            raise ValueError(f"Optimizers: found {part_rates!r} without `parts` to apply it to")
        self.params = [p for _, p in trained]
        """Of the model: what gradients are taken of."""
        weights = [_full(param) for param in self.params]
        self._copies = [
            (param, weight)
            for param, weight in zip(self.params, weights, strict=True)
            if weight is not param
        ]
        trained = [(name, weight) for (name, _), weight in zip(trained, weights, strict=True)]
        self._weights = weights
        self.part_norms: dict[str, float] = {}
        """Gradient norm of each part in the last step, before clipping; empty without `parts`."""
        self._by_part: dict[str, list[nn.Parameter]] = {}
        for name, param in trained:
            part = OTHER if parts is None else part_of(name, parts)
            self._by_part.setdefault(part, []).append(param)
        self._has_parts = parts is not None
        self._part_of = {id(p): part for part, ps in self._by_part.items() for p in ps}
        self.parts: list[torch.optim.Optimizer] = []
        if isinstance(config, MuonConfig):
            matrices = [p for name, p in trained if is_block_matrix(name, p)]
            rest = [p for name, p in trained if not is_block_matrix(name, p)]
            if matrices:
                self.parts.append(Muon(self._groups(matrices, config.lr, part_rates, 1.0), config))
            if rest:
                ratio = config.adamw_lr / config.lr
                groups = self._groups(rest, config.adamw_lr, part_rates, ratio)
                self.parts.append(
                    torch.optim.AdamW(groups, betas=config.adamw_betas, weight_decay=0.0)
                )
        else:
            self.parts.append(
                torch.optim.AdamW(
                    self._groups(self._weights, config.lr, part_rates, 1.0),
                    betas=config.betas,
                    eps=config.eps,
                    weight_decay=config.weight_decay,
                )
            )
        self._base = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def _groups(
        self, params: list[nn.Parameter], lr: float, part_rates: PartRates, ratio: float
    ) -> list[dict[str, Any]]:
        """Parameter groups by part, in the order of the model."""
        by_part: dict[str, list[nn.Parameter]] = {}
        for param in params:
            by_part.setdefault(self._part_of[id(param)], []).append(param)
        own = {part: part_rates.of(part) for part in by_part}
        rates = {part: lr if rate is None else rate * ratio for part, rate in own.items()}
        return [{"params": found, "lr": rates[part]} for part, found in by_part.items()]

    @property
    def rates(self) -> dict[str, list[float]]:
        """Peak learning rates of each part that trains, for `vl.parts.training_table`."""
        found: dict[str, list[float]] = {}
        for part, rates in zip(self.parts, self._base, strict=True):
            for group, rate in zip(part.param_groups, rates, strict=True):
                found.setdefault(self._part_of[id(group["params"][0])], []).append(rate)
        return found

    def set_factor(self, factor: float) -> float:
        """Scales all learning rates; returns the first group's."""
        for part, rates in zip(self.parts, self._base, strict=True):
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        return self.parts[0].param_groups[0]["lr"]

    def step(self, max_grad_norm: float) -> float:
        """Clips the gradient's norm, updates, clears; returns the norm before clipping.

        Raises:
            NonFiniteGradient: the norm is no number; the gradients are dropped, nothing changed.
        """
        for param, weight in self._copies:
            weight.grad = None if param.grad is None else param.grad.float()
            param.grad = None
        norms = {part: _norm(params) for part, params in self._by_part.items()}
        norm = torch.linalg.vector_norm(torch.stack(list(norms.values())))
        if not torch.isfinite(norm):
            self.zero_grad()
            raise NonFiniteGradient(
                f"gradient norm is {norm.item()}{_where(norms)}: lower the learning rate or resume "
                "from the checkpoint before this step"
            )
        nn.utils.clip_grads_with_norm_(self._weights, max_grad_norm, norm)
        for part in self.parts:
            part.step()
        self.zero_grad()
        with torch.no_grad():
            for param, weight in self._copies:
                param.copy_(weight)
        self.part_norms = {p: float(n) for p, n in norms.items()} if self._has_parts else {}
        return float(norm)

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for weight in (*self.params, *self._weights):
            weight.grad = None

    def state_dict(self) -> list[dict[str, Any]]:
        """State of every part, and the copies of weights of 16 bits, for a checkpoint."""
        copies = [{"copies": [weight.detach() for _, weight in self._copies]}]
        return [*(part.state_dict() for part in self.parts), *(copies if self._copies else [])]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Restores what `state_dict` gave."""
        of_parts = states[:-1] if self._copies else states
        for part, state in zip(self.parts, of_parts, strict=True):
            part.load_state_dict(state)
        with torch.no_grad():
            for (_, weight), value in zip(
                self._copies, states[-1]["copies"] if self._copies else (), strict=True
            ):
                weight.copy_(value)


def _full(param: nn.Parameter) -> nn.Parameter:
    """The parameter, or a copy in float32 of one of 16 bits."""
    if param.dtype not in (torch.bfloat16, torch.float16):
        return param
    return nn.Parameter(param.detach().float())


def _norm(params: Sequence[nn.Parameter]) -> Tensor:
    """Norm of all gradients that there are."""
    return nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])


def _where(norms: Mapping[str, Tensor]) -> str:
    """The parts whose norm is no number, in words."""
    bad = [part for part, norm in norms.items() if not torch.isfinite(norm) and part != OTHER]
    return f" in {', '.join(bad)}" if bad else ""


def is_block_matrix(name: str, param: Tensor) -> bool:
    """True for weights of transformer blocks and the projector: what Muon is meant for."""
    if param.ndim < 2 or "block_sparse_moe.gate" in name:
        return False
    inside = ".layers." in name or "multi_modal_projector." in name
    return inside and (param.ndim == 2 or "experts" in name)
