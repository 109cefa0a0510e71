"""The record of one complete run; its JSON alone is enough to repeat the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from data_specs import shorten
from verifiers import Scoring, read_scoring
from vl.algorithms import Algorithm, algorithm
from vl.evaluate import EvalConfig
from vl.lora import LoraConfig
from vl.optim import Schedule
from vl.rl import RlConfig
from vl.sft import AlignConfig, SftConfig

from .overrides import field_paths

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


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
    # departs from MiniMax-VL-01: softmax in every second layer instead of every eighth; with four
    # layers in all, fewer leave the answer no way to look back at the picture
    intermediate_size: int = 128
    num_local_experts: int = 8
    num_vision_layers: int = 2
    image_size_px: int = 64
    spatial_merge_size: int = 2
    coordinate_bins: int = 32
    """Box coordinates that are single tokens along one side of the picture."""


@dataclass(frozen=True, kw_only=True)
class SavedModelConfig:
    """A trained image-text-to-text model to go on from."""

    path: str
    """Folder or hub name that transformers loads, or a finished run's directory."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the weights; auto = as saved."""
    lora: LoraConfig | None = None
    """Train low-rank adapters instead of the weights; they are added in when the run ends."""
    autocast: bool = False
    """Mixed precision: layers multiply in bfloat16, all else is kept in the weights' type."""
    gradient_checkpointing: bool = False
    """Compute layers again in the backward pass, for memory; prompts are then not shared."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run."""

    name: str
    seed: int = 0
    num_shards: int = 2
    """Parts of every batch, computed side by side on as many cores; they decide the order of sums
    and the random streams, so keep the number to repeat a run."""
    data: DataConfig = DataConfig()
    model: ModelConfig | SavedModelConfig = ModelConfig()
    """A new MiniMax-VL, or a model to go on from."""
    align: AlignConfig | None = AlignConfig()
    """Stage 1, for new models; None = left out."""
    sft: SftConfig | None = SftConfig()
    """Stage 2; None = left out."""
    rl: RlConfig = RlConfig()
    control: bool = True
    """Also spend RL's seconds on more SFT, for comparison."""
    control_schedule: Schedule = Schedule(warmup_steps=30, decay_frac=0.6)
    """The control's learning rate: it is let down to zero, as RL's is."""
    evaluation: EvalConfig = EvalConfig()
    evaluate_every: int = 0
    """RL steps between evaluations of some held-out rows during the run; 0 = none."""
    checkpoint_every: int = 50
    """Steps between checkpoints; a stage's last step always has one."""
    online_pictures_per_source: int = 8
    """Held-out pictures of each source in those."""

    def __post_init__(self) -> None:
        if isinstance(self.model, SavedModelConfig) and self.align is not None:
            raise RecipeError("align: stage 1 is for new models; set it to null for a saved one")
        if self.checkpoint_every < 1:
            raise RecipeError(f"checkpoint_every: found {self.checkpoint_every!r}; use 1 or more")
        if self.control and self.sft is None:
            raise RecipeError("control: found true without sft, which it goes on with; set false")
        for name, stage in (("align", self.align), ("sft", self.sft), ("rl", self.rl)):
            if stage is None:
                continue
            if stage.num_steps < 1 or stage.pictures_per_step < 1:
                raise RecipeError(
                    f"{name}: num_steps {stage.num_steps!r} and pictures_per_step "
                    f"{stage.pictures_per_step!r} must be at least 1"
                )


_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON values."""
    return _ADAPTER.dump_python(recipe, mode="json")


def recipe_from_json(content: Mapping[str, Any]) -> Recipe:
    """The recipe that `recipe_to_json` gave; fields that are absent have their defaults.

    Raises:
        RecipeError: the name is missing, a field is unknown, or a value is not allowed.
    """
    try:
        recipe = _ADAPTER.validate_json(json.dumps(content))
    except ValidationError as error:
        raise RecipeError("; ".join(_problem(one) for one in error.errors())) from error
    known = set(field_paths(recipe_to_json(recipe)))
    unknown = [path for path in field_paths(content) if path not in known]
    if unknown:
        raise RecipeError(
            f"recipe: {unknown[0]!r} is not a field, or its value is not one that fits; fields "
            f"there: {', '.join(sorted(_siblings(unknown[0], known)))}. Correct it or take it out"
        )
    return recipe


def algorithm_to_json(name: str, max_new_tokens: int) -> dict[str, Any]:
    """The fields of `rl` that an algorithm decides, as plain JSON values."""
    try:
        chosen = algorithm(name, max_new_tokens=max_new_tokens)
    except ValueError as error:
        raise RecipeError(f"--{error}") from error
    return TypeAdapter(Algorithm).dump_python(chosen, mode="json")


def scorers_to_json(text: str) -> dict[str, Any]:
    """Workers or servers, as a command line names them, as plain JSON values."""
    try:
        scoring = read_scoring(text)
    except ValueError as error:
        raise RecipeError(f"--scorers: found {text!r}; {error}") from error
    adapter: TypeAdapter[Scoring] = TypeAdapter(Scoring)
    return adapter.dump_python(scoring, mode="json")


def _siblings(path: str, known: set[str]) -> set[str]:
    """Known fields beside one, without those below them."""
    parent = path.rpartition(".")[0]
    return {other for other in known if other.rpartition(".")[0] == parent}


def _problem(error: ErrorDetails) -> str:
    """One fault of a value: which field, what was found, what is allowed."""
    field = ".".join(str(part) for part in error["loc"]) or "recipe"
    return f"{field}: found {shorten(error['input'])}; {error['msg']}"
