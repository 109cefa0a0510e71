"""Recipes as JSON, and their fields set by name."""

import json
from dataclasses import replace

import pytest

from recipes import RECIPES
from recipes.overrides import override
from recipes.recipe import (
    DataConfig,
    Recipe,
    RecipeError,
    recipe_from_json,
    recipe_to_json,
)
from verifiers import AveragedIou, FixedIou, StagedIou
from vl.algorithms import ALGORITHM_NAMES
from vl.dynamic_sampling import DynamicSampling
from vl.losses import CispoConfig, ConstantLength, GrpoConfig, GspoConfig, SequenceMean
from vl.optim import AdamWConfig, MuonConfig
from vl.overlong import OverlongPenalty

TINY = RECIPES["orsta_tiny"](smoke=False)
SMOKE = RECIPES["orsta_tiny"](smoke=True)

VARIANTS = [
    TINY,
    SMOKE,
    *(override(TINY, {"algorithm": name}) for name in ALGORITHM_NAMES),
    replace(TINY, rl=replace(TINY.rl, loss=GrpoConfig(ratio_low=None, dual_clip=3.0))),
    replace(TINY, rl=replace(TINY.rl, loss=CispoConfig(ratio_high=None))),
    *(
        replace(TINY, rl=replace(TINY.rl, iou_rule=rule))
        for rule in (FixedIou(0.7), AveragedIou(), AveragedIou((0.5, 0.9)), StagedIou())
    ),
    *(replace(TINY, sft=replace(TINY.sft, optimizer=o)) for o in (AdamWConfig(), MuonConfig())),
    replace(TINY, data=DataConfig(train_files=("a.parquet",), heldout_files=("b.parquet",))),
]


def test_an_algorithm_sets_all_that_its_paper_sets_and_single_fields_win():
    dapo = override(
        TINY, {"overlong.weight": "0.5", "algorithm": "dapo", "sampling.max_new_tokens": "100"}
    ).rl
    assert dapo.overlong == OverlongPenalty(max_tokens=100, margin_tokens=20, weight=0.5)
    assert dapo.dynamic_sampling == DynamicSampling(max_extra_batches=3)
    dr_grpo = override(TINY, {"algorithm": "dr_grpo"}).rl
    assert dr_grpo.loss == GrpoConfig(aggregation=ConstantLength(divisor_tokens=40))
    assert not dr_grpo.advantage.divide_by_std and dr_grpo.overlong is None


@pytest.mark.parametrize("recipe", VARIANTS)
def test_a_recipe_survives_its_json(recipe):
    text = json.dumps(recipe_to_json(recipe))
    assert recipe_from_json(json.loads(text)) == recipe


def test_a_dotted_name_sets_its_field_alone():
    changed = override(TINY, {"rl.num_steps": "7", "rl.sampling.temperature": "0.5"})
    sampling = replace(TINY.rl.sampling, temperature=0.5)
    assert changed == replace(TINY, rl=replace(TINY.rl, num_steps=7, sampling=sampling))


def test_a_bare_name_stands_for_the_only_path_that_ends_in_it():
    assert override(TINY, {"seed": "3"}).seed == 3
    assert override(TINY, {"seed": "3"}).data.seed == TINY.data.seed
    assert override(TINY, {"num_rollouts": "4"}).rl.sampling.num_rollouts == 4
    assert override(TINY, {"num-train-images": "9"}).data.num_train_images == 9
    assert override(TINY, {"control": "false"}).control is False


def test_a_list_takes_one_value_or_a_json_list():
    one = override(TINY, {"train_files": "a.parquet", "data.heldout_files": '["b", "c"]'})
    assert one.data.train_files == ("a.parquet",) and one.data.heldout_files == ("b", "c")


def test_a_mapping_takes_new_names():
    assert override(TINY, {"data.sft_weights.arc_grids": "2"}).data.sft_weights["arc_grids"] == 2.0


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("cispo", CispoConfig(ratio_low=None, ratio_high=5.0)),
        ("grpo", GrpoConfig(ratio_low=0.8, ratio_high=1.2, aggregation=SequenceMean())),
        ("dapo", GrpoConfig(ratio_low=0.8, ratio_high=1.28)),
        ("gspo", GspoConfig(ratio_low=0.9997, ratio_high=1.0004)),
    ],
)
def test_the_algorithm_is_one_flag(name, loss):
    recipe = override(TINY, {"algorithm": name})
    assert recipe.rl.loss == loss
    assert recipe_from_json(recipe_to_json(recipe)) == recipe


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rl.num_step", "5", "--rl.num_steps"),
        ("num_rolouts", "5", "--rl.sampling.num_rollouts"),
        ("num_steps", "5", "stands for several fields; did you mean --align.num_steps"),
        ("nonsense", "5", "is not a field of the recipe; did you mean --"),
        ("algorithm", "ppo", "found 'ppo'; known: cispo, grpo, dapo, dr_grpo, gspo, v_triune"),
        ("rl.num_steps", "many", "rl.num_steps: found 'many'"),
        ("rl.num_steps", "0", "num_steps 0"),
        ("rl.num_steps", "2.5", "rl.num_steps: found 2.5"),
        ("temperature", "-1", "temperature: found -1"),
        ("rl.iou_rule", '{"threshold": 2}', "'rl.iou_rule.threshold' is not a field, or its value"),
        ("train_files", "a.parquet", "must be given together"),
    ],
)
def test_a_wrong_field_or_value_says_what_would_be_right(name, value, said):
    with pytest.raises(RecipeError) as caught:
        override(TINY, {name: value})
    assert said in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_an_unknown_field_of_a_stored_recipe_is_not_passed_over():
    content = recipe_to_json(TINY)
    content["rl"]["num_stepz"] = 5
    with pytest.raises(RecipeError, match=r"'rl\.num_stepz' is not a field"):
        recipe_from_json(content)
    with pytest.raises(RecipeError, match="name"):
        recipe_from_json({})


def test_an_absent_field_has_its_default():
    assert recipe_from_json({"name": "x"}) == Recipe(name="x")
