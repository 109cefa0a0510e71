"""Fields of a recipe set by name from the command line: `--rl.num_steps 200`, `--seed 1`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .recipe import Recipe

OPEN_FIELDS = ("data.sft_weights", "data.rl_weights")
"""Mappings that take any name: `--data.rl_weights.easy_vqa 0`."""


def override(recipe: Recipe, changes: Mapping[str, str]) -> Recipe:
    """The recipe with fields replaced, named by dotted paths.

    A value is read as JSON where it is JSON, else as a string; where a list belongs, one value is a
    list of one. `algorithm` takes a name of `vl.algorithms`, and sets what its paper sets;
    `scorers` a number of worker processes, or the addresses of reward servers with commas between.
    The end of a path stands for the only path that ends in it.

    Raises:
        RecipeError: an unknown field (names its neighbours) or a value that does not fit.
    """
    from .recipe import (
        RecipeError,
        algorithm_to_json,
        recipe_from_json,
        recipe_to_json,
        scorers_to_json,
    )

    content = recipe_to_json(recipe)
    paths = field_paths(content)
    wishes = {name.replace("-", "_"): text for name, text in changes.items()}
    # whole algorithms first, so that single fields of theirs can be set beside them; but an
    # algorithm's lengths follow the limit of sampling
    for wanted, text in sorted(wishes.items(), key=lambda wish: _rank(wish[0], paths)):
        if wanted == "algorithm":
            content["rl"] |= algorithm_to_json(text, content["rl"]["sampling"]["max_new_tokens"])
            paths = field_paths(content)
            continue
        if wanted == "scorers":
            content["rl"]["scoring"] = content["evaluation"]["scoring"] = scorers_to_json(text)
            continue
        path, problem = _find(wanted, paths)
        if problem:
            raise RecipeError(problem)
        _assign(content, path, text)
    return recipe_from_json(content)


def _rank(wanted: str, paths: list[str]) -> int:
    if wanted == "algorithm":
        return 1
    return 0 if _find(wanted, paths)[0] == "rl.sampling.max_new_tokens" else 2


def field_paths(content: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted paths of all fields, those that hold fields included."""
    paths: list[str] = []
    for name, value in content.items():
        paths.append(prefix + name)
        if isinstance(value, dict):
            paths += field_paths(value, f"{prefix}{name}.")
    return paths


def as_list(text: str) -> list[str]:
    """File names as a field's text gives them: a JSON list, or one name."""
    value = _value(text)
    return [str(item) for item in value] if isinstance(value, list) else [text]


def _find(name: str, paths: list[str]) -> tuple[str, str]:
    """(path, "") or ("", what is wrong with the name)."""
    if name in paths or name.rpartition(".")[0] in OPEN_FIELDS:
        return name, ""
    ending = [path for path in paths if path.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0], ""
    problem = "stands for several fields" if ending else "is not a field of the recipe"
    near = ending or _neighbours(name, paths)
    return "", f"--{name}: {problem}; did you mean {', '.join('--' + path for path in near)}?"


def _neighbours(name: str, paths: list[str]) -> list[str]:
    """Nearest paths by whole path or by last part, else the first fields of the recipe."""
    near = difflib.get_close_matches(name, paths, n=3)
    lasts = [path.rpartition(".")[2] for path in paths]
    for last in difflib.get_close_matches(name.rpartition(".")[2], lasts, n=2):
        near += [path for path in paths if path.rpartition(".")[2] == last]
    return list(dict.fromkeys(near))[:5] or ["algorithm", "scorers", *paths[:8]]


def _assign(content: dict[str, Any], path: str, text: str) -> None:
    *parents, last = path.split(".")
    node = content
    for parent in parents:
        node = node[parent]
    value = _value(text)
    is_list = isinstance(node.get(last), list)
    node[last] = [value] if is_list and not isinstance(value, list) else value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
