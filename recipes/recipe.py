"""The record of one complete run; its JSON alone is enough to repeat the run."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vl.evaluate import EvalConfig
from vl.losses import CispoConfig, GrpoConfig, PolicyLossConfig, dapo_config
from vl.rl import RlConfig
from vl.sft import AlignConfig, SftConfig


class RecipeError(ValueError):
    """A recipe or an override that cannot be run as asked."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The embedded data, drawn from real things at build time."""

    seed: int = 0
    num_train_images: int = 1500
    """Pictures a source; each carries four rows."""
    num_heldout_images: int = 64
    """Held-out pictures a source, from assets that training never sees."""
    train_files: tuple[str, ...] = ()
    """Parquet files to train on instead of the embedded data; needs heldout_files too."""
    heldout_files: tuple[str, ...] = ()
    sft_weights: dict[str, float] = field(default_factory=dict[str, float])
    """Uses of a source's pictures an epoch in SFT; sources not named have 1."""
    rl_weights: dict[str, float] = field(default_factory=dict[str, float])
    """The same for RL; 0 leaves a source out."""

    def __post_init__(self) -> None:
        if bool(self.train_files) != bool(self.heldout_files):
            raise RecipeError(
                f"data: train_files {self.train_files!r} and heldout_files {self.heldout_files!r} "
                "must be given together; name both, or neither for the embedded data"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The MiniMax-VL to train from scratch (names as in `MiniMaxVLTextConfig`)."""

    hidden_size: int = 128
    num_hidden_layers: int = 4
    attn_type_list: tuple[int, ...] = (0, 1, 0, 1)
    """0 = lightning attention, 1 = softmax attention, one entry a layer."""
    intermediate_size: int = 128
    num_local_experts: int = 8
    num_vision_layers: int = 2
    image_size_px: int = 64
    spatial_merge_size: int = 2
    coordinate_bins: int = 32
    """Box coordinates that are single tokens along one side of the picture."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run."""

    name: str
    seed: int = 0
    num_threads: int = 2
    """Torch threads; 1 if other processes are busy on the machine."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    align: AlignConfig = AlignConfig()
    sft: SftConfig = SftConfig()
    rl: RlConfig = RlConfig()
    control: bool = True
    """Also spend RL's seconds on more SFT, for comparison."""
    evaluation: EvalConfig = EvalConfig()


_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)

ALGORITHMS: Mapping[str, PolicyLossConfig] = {
    "cispo": CispoConfig(),
    "grpo": GrpoConfig(),
    "dapo": dapo_config(),
}


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON values."""
    return _ADAPTER.dump_python(recipe, mode="json")


def recipe_from_json(content: Mapping[str, Any]) -> Recipe:
    """The recipe that `recipe_to_json` gave.

    Raises:
        RecipeError: a field is missing, unknown or has a value that is not allowed.
    """
    try:
        return _ADAPTER.validate_json(json.dumps(content))
    except (ValidationError, ValueError) as error:
        raise RecipeError(f"recipe: {error}") from error


def override(recipe: Recipe, changes: Mapping[str, str]) -> Recipe:
    """The recipe with fields replaced, named by dotted paths: `rl.num_steps`, `seed`.

    A value is read as JSON where it is JSON, else as a string. `algorithm` takes cispo, grpo or
    dapo. A bare field name stands for the only path that ends in it.

    Raises:
        RecipeError: an unknown field (names its neighbours) or a value that does not fit.
    """
    content = recipe_to_json(recipe)
    paths = _paths(content)
    for name, text in changes.items():
        path = name.replace("-", "_")
        if path == "algorithm":
            content["rl"]["loss"] = _algorithm(text)
            continue
        _assign(content, _resolve(path, paths), text)
    return recipe_from_json(content)


def _algorithm(name: str) -> dict[str, Any]:
    if name not in ALGORITHMS:
        raise RecipeError(f"--algorithm: found {name!r}; known: {', '.join(sorted(ALGORITHMS))}")
    adapter: TypeAdapter[PolicyLossConfig] = TypeAdapter(PolicyLossConfig)
    return adapter.dump_python(ALGORITHMS[name], mode="json")


def _paths(content: Mapping[str, Any], prefix: str = "") -> list[str]:
    paths: list[str] = []
    for name, value in content.items():
        paths.append(prefix + name)
        if isinstance(value, dict):
            paths += _paths(value, f"{prefix}{name}.")
    return paths


def _resolve(name: str, paths: list[str]) -> str:
    if name in paths or any(name.startswith(f"data.{w}.") for w in ("sft_weights", "rl_weights")):
        return name
    ending = [path for path in paths if path.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    near = ending or difflib.get_close_matches(name, paths, n=3) or sorted(paths)[:8]
    problem = "stands for several fields" if ending else "is not a field of the recipe"
    raise RecipeError(f"--{name}: {problem}; did you mean {', '.join('--' + p for p in near)}?")


def _assign(content: dict[str, Any], path: str, text: str) -> None:
    *parents, last = path.split(".")
    node = content
    for parent in parents:
        node = node[parent]
    try:
        node[last] = json.loads(text)
    except json.JSONDecodeError:
        node[last] = text
