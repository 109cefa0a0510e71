"""Who judges: the number of workers or the servers that a flag names."""

import pytest
from test_verifiers_cases import make

from recipes.overrides import override
from recipes.recipe import Recipe, RecipeError, recipe_from_json, recipe_to_json
from verifiers import PoolScoring, ScoreContext, ServerScoring, read_scoring, score_with


def test_a_number_is_workers_and_addresses_are_servers():
    assert read_scoring("0") == PoolScoring(workers=0)
    assert read_scoring("http://a:1, http://b:2") == ServerScoring(
        urls=("http://a:1", "http://b:2")
    )
    with pytest.raises(ValueError, match="allowed: one or more http"):
        read_scoring("four")
    with pytest.raises(ValueError, match="workers -1"):
        PoolScoring(workers=-1)


def test_one_flag_sets_training_and_evaluation_and_survives_the_config_file():
    recipe = override(Recipe(name="x"), {"scorers": "http://a:1,http://b:2"})
    servers = ServerScoring(urls=("http://a:1", "http://b:2"))
    assert (recipe.rl.scoring, recipe.evaluation.scoring) == (servers, servers)
    assert recipe_from_json(recipe_to_json(recipe)) == recipe
    assert override(recipe, {"scorers": "3"}).rl.scoring == PoolScoring(workers=3)
    with pytest.raises(RecipeError, match="--scorers: found 'some'"):
        override(recipe, {"scorers": "some"})


def test_verdicts_are_the_same_in_process_and_in_a_worker():
    items = [(make("number", r"\boxed{7}"), rf"\boxed{{{n}}}") for n in (6, 7)]
    for workers in (0, 1):
        verdicts = score_with(PoolScoring(workers=workers), items, ScoreContext())
        assert [verdict.score for verdict in verdicts] == [0.0, 1.0]
