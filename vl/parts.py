"""The parts of a model (`vit`, `connector`, `llm`): what of them trains, and at which rate.

Source: V-Triune (arXiv 2505.18129) section 5 trains with `vit` and `connector` frozen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from .policy import PARTS

OTHER = "other"
"""Trained beside the model, e.g. a read-out that is thrown away."""

Prefixes = Mapping[str, Sequence[str]]
"""Part -> leading pieces of its parameters' names, as `Policy.parts` gives them."""


@dataclass(frozen=True, kw_only=True)
class PartRates:
    """Peak learning rates of parts that have one of their own; None = the optimizer's."""

    vit: float | None = None
    connector: float | None = None
    llm: float | None = None

    def __post_init__(self) -> None:
        for part in PARTS:
            rate = getattr(self, part)
            if rate is not None and not rate > 0.0:
                raise ValueError(
                    f"PartRates.{part}: found {rate!r}; a learning rate is above 0; freeze the "
                    "part to leave it as it is, or None for the optimizer's rate"
                )

    def of(self, part: str) -> float | None:
        """The rate of a part; None = the optimizer's."""
        return getattr(self, part) if part in PARTS else None


BASE_RATES = PartRates()
"""Every part at the optimizer's rate."""


def part_of(name: str, parts: Prefixes) -> str:
    """The part whose prefix a parameter's name starts with, the longest if several do."""
    found = [
        (len(prefix), part)
        for part, prefixes in parts.items()
        for prefix in prefixes
        if name.startswith(prefix)
    ]
    return max(found)[1] if found else OTHER


def freeze(model: nn.Module, parts: Prefixes, frozen: Sequence[str]) -> None:
    """Stops the gradient of all parameters of the parts; what else is frozen stays so (LoRA).

    Raises:
        ValueError: a part that the model does not have, or parameters of no part.
    """
    unknown = [part for part in frozen if part not in parts]
    if unknown:
        raise ValueError(f"frozen: found {unknown[0]!r}; the model's parts are {', '.join(parts)}")
    for name, param in model.named_parameters():
        part = part_of(name, parts)
        if part == OTHER:
            raise ValueError(
                f"parameter {name} belongs to none of the parts {', '.join(parts)}; the policy's "
                "`parts` must name every parameter"
            )
        if part in frozen:
            param.requires_grad_(False)


def training_table(
    model: nn.Module, parts: Prefixes, rates: Mapping[str, Sequence[float]]
) -> list[str]:
    """What trains, a line a part: parameters, those of them that train, and their peak rates.

    Args:
        rates: by part, as `Optimizers.rates` says; none where a part is frozen.
    """
    counts: dict[str, list[int]] = {part: [0, 0] for part in parts}
    for name, param in model.named_parameters():
        count = counts.setdefault(part_of(name, parts), [0, 0])
        count[0] += param.numel()
        count[1] += param.numel() if param.requires_grad else 0
    lines = [f"{'part':<10} {'parameters':>15} {'trained':>15}  learning rate"]
    for part, (every, trained) in counts.items():
        peaks = " and ".join(f"{rate:g}" for rate in rates.get(part, ()))
        rate = peaks if trained else "frozen"
        lines.append(f"{part:<10} {every:>15,} {trained:>15,}  {rate}")
    sums = [sum(count[index] for count in counts.values()) for index in (0, 1)]
    return [*lines, f"{'all':<10} {sums[0]:>15,} {sums[1]:>15,}"]
