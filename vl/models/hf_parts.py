"""Which parameters of a transformers model are its vision tower, its connector, its language model.

The names are those of transformers' model families; a parameter that none of them covers is an
error, so that nothing trains or freezes unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from vl.policy import PARTS

_TOWERS = ("visual", "vision_tower", "vision_model")
_CONNECTORS = ("multi_modal_projector", "connector", "image_newline", "aligner", "mlp1")
_LANGUAGE = ("language_model", "text_model", "lm_head")
_IN_TOWER_CONNECTOR = "merger"
"""Qwen keeps its connector(s) inside the tower: `merger`, `deepstack_merger_list`."""


def parts_of(model: PreTrainedModel) -> dict[str, tuple[str, ...]]:
    """Leading pieces of parameter names for each of PARTS; together they name every one.

    Raises:
        ValueError: names of parameters that belong to no known part.
    """
    prefixes: dict[str, list[str]] = {part: [] for part in PARTS}
    inner = model.base_model
    stem = next((f"{name}." for name, child in model.named_children() if child is inner), "")
    for module, start in ((model, ""), (inner, stem)):
        for name in _own_names(module):
            for part, prefix in _place(module, name, start):
                if prefix not in prefixes[part]:
                    prefixes[part].append(prefix)
    found = {part: tuple(sorted(names)) for part, names in prefixes.items()}
    every = tuple(prefix for names in found.values() for prefix in names)
    lost = [name for name, _ in model.named_parameters() if not name.startswith(every)]
    if lost:
        raise ValueError(
            f"{type(model).__name__}: {len(lost)} parameters belong to no known part, e.g. "
            f"{lost[:5]}; known are the towers {_TOWERS}, the connectors {_CONNECTORS} and the "
            f"language parts {_LANGUAGE}. Add the name in vl/models/hf_parts.py"
        )
    return found


def _own_names(module: nn.Module) -> Iterator[str]:
    yield from (
        name
        for name, child in module.named_children()
        if next(child.parameters(), None) is not None
    )
    yield from (name for name, _ in module.named_parameters(recurse=False))


def _place(module: nn.Module, name: str, start: str) -> Iterator[tuple[str, str]]:
    """(part, prefix) of what a name covers; nothing for a name without a known part."""
    if name in _LANGUAGE:
        yield "llm", f"{start}{name}."
    elif name in _CONNECTORS:
        yield "connector", f"{start}{name}"
    elif name in _TOWERS:
        for inside in _own_names(getattr(module, name)):
            part = "connector" if _IN_TOWER_CONNECTOR in inside else "vit"
            yield part, f"{start}{name}.{inside}"
