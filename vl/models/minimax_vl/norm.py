"""RMSNorm whose temporaries stay in a core's cache.

Large fresh tensors cost a CPU more than the arithmetic on them, so rows are worked on in small
parts: the forward pass writes one tensor, the backward pass one gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_PART_VALUES = 2**17
"""Values worked on at once: half a megabyte in float32."""


class RmsNorm(nn.RMSNorm):
    """`nn.RMSNorm` over the last dimension, with less memory traffic on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """`x / rms(x) * weight`; statistics in float32, cast to x's type before the weight."""
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        return _RmsNorm.apply(x, self.weight, self.eps)  # pyright: ignore[reportReturnType]


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        output = torch.empty(x.shape, dtype=x.dtype)
        for rows, target in _parts(x, output):
            exact = _exact(rows)
            torch.mul(exact, inverse_rms(exact, eps), out=target)
            target *= weight
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (d_output,) = grads
        x, weight = ctx.saved_tensors
        d_x = torch.empty(x.shape, dtype=x.dtype)
        d_weight = torch.zeros_like(weight, dtype=_exact(weight).dtype)
        for rows, d_rows, target in _parts(x, d_output, d_x):
            exact, d_exact = _exact(rows), _exact(d_rows)
            inverse = inverse_rms(exact, ctx.eps)
            normed = exact * inverse
            d_weight += torch.linalg.vecdot(d_exact, normed, dim=0)
            d_normed = d_exact * weight
            normed *= -torch.linalg.vecdot(d_normed, normed)[:, None] / x.shape[-1]
            normed += d_normed
            torch.mul(normed, inverse, out=target)
        return d_x, d_weight.to(weight.dtype), None


def inverse_rms(rows: Tensor, eps: float) -> Tensor:
    """(row, 1) of (row, dim): one over the root mean square."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return torch.rsqrt(norms.square() / rows.shape[1] + eps)


def _exact(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors as (row, dim), in parts of some rows."""
    flat = [tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors]
    size = max(_PART_VALUES // flat[0].shape[1], 1)
    return zip(*(tensor.split(size) for tensor in flat), strict=True)
