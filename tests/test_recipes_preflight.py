"""`vl train --check` on the smoke recipe, whole and with planted faults."""

import re
from dataclasses import replace

import pytest
from smoke import data_only
from tiny_vl import corpus_of, tiny_policy
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_specs import Problem
from recipes.cli import main
from recipes.preflight import unsound_references
from recipes.preflight_cost import Cost, Part
from recipes.preflight_findings import judge_cost, judge_tokens
from recipes.preflight_tokens import Lengths, TokenCounts, unknown_words
from recipes.prepare import Run
from recipes.recipe import Recipe
from tasks.check import check_files
from vl.parallel import Shards
from vl.processes import ALONE


def check(out, cache, *words):
    start = ["train", "orsta_tiny", "--smoke", "--check"]
    return main([*start, "--out", str(out), "--cache", str(cache), *words])


def test_a_good_recipe_passes_and_nothing_is_written(tmp_path, smoke_run, capsys):
    cache = data_only(smoke_run.cache, tmp_path / "cache")
    before = sorted(cache.rglob("*"))
    assert check(tmp_path / "run", cache) == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "run").exists() and sorted(cache.rglob("*")) == before
    assert "WRONG" not in said
    names = ("rows", "image tokens", "prompts", "answers", "words", "group spread", "memory")
    for name in (*names, "time"):
        assert re.search(rf"^ok +{name} ", said, re.MULTILINE), name
    assert "16 a picture from the vision tower, 16 <image> from the processor (17" in said
    assert "64 groups of 4 rollouts" in said  # 16 sources of RL, four rows each
    assert "next to none: give weights with --model" in said
    # 12 training and 4 held-out pictures, four rows each; the longest box answer has two boxes
    assert re.search(r"^mnist_detect +64 +100\.0% \|.*\| +9 +23 +23\|", said, re.MULTILINE)
    assert "align" in said and "x 40 steps" in said and "x 6 steps" in said


def test_given_weights_and_a_limit_too_small_for_references(tmp_path, smoke_run, capsys):
    words = ["--model", str(smoke_run.out), "--rl.sampling.max_new_tokens", "8"]
    assert check(tmp_path / "run", smoke_run.cache, *words) == 2
    found = capsys.readouterr()
    assert re.search(r"^WRONG +answers ", found.out, re.MULTILINE)
    assert "give weights" not in found.out
    # every reference with a box has at least nine tokens
    (line,) = [line for line in found.err.splitlines() if line.startswith("mnist_colour: ")]
    assert "rl.sampling.max_new_tokens is 8: 100.0% of its references are longer" in line
    assert "allowed: at most 5%. Set --rl.sampling.max_new_tokens 9" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resume"], "leave --resume out"),
        (["--model", "absent"], "absent is no folder here"),
        (["--rl.sampling.num_rollouts", "1"], "sample at least 2 a prompt"),
    ],
)
def test_what_the_run_would_refuse_is_wrong(words, said, tmp_path, smoke_run, capsys):
    if words == ["--resume"]:
        assert main(["train", "--check", *words, "--out", str(smoke_run.out)]) == 2
    else:
        assert check(tmp_path / "run", smoke_run.cache, *words) == 2
    assert said in capsys.readouterr().err


def test_model_is_for_check_only(tmp_path, capsys):
    assert main(["train", "orsta_tiny", "--out", str(tmp_path / "run"), "--model", "m"]) == 2
    assert "without --check" in capsys.readouterr().err


def test_a_reference_that_does_not_score_1_counts_against_its_source(smoke_run):
    (path,) = smoke_run.cache.glob("data-*/train/*mnist_count*.parquet")
    report = check_files(path)
    assert unsound_references(report) == {}
    parts = {"file": path.name, "id": "", "field": "f", "value": "v", "allowed": "a"}
    problems = tuple(
        Problem(**parts, row=row, remedy="r", kind=kind)
        for row, kind in ((0, "bad_reference"), (0, "box_empty"), (3, "overlap"), (5, "box_space"))
    )
    assert unsound_references(replace(report, problems=problems)) == {"mnist_count": 2}


def test_unknown_words_are_those_that_become_the_unknown_token():
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "red": 1, "dog": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    assert unknown_words(fast, ["red dog", "red cat", "a dog"]) == ["a", "cat"]
    assert unknown_words(tiny_policy().processor.tokenizer, ["zebra"]) is None


COUNTS = TokenCounts(
    written_image_tokens=(4, 4),
    given_image_tokens=4,
    prompts={"dots": Lengths(20, 30, 8150)},
    answers={"dots": Lengths(3, 4, 5)},
    cut={"dots": 0.05},
    cut_heldout={"dots": 0.5},
    unknown_words=[],
)


def wrong(counts):
    corpus = corpus_of(1)
    parts = (None, None, None, None)  # no log, cache, checkpoints, progress
    made = (Recipe(name="r"), None, corpus, (), corpus, tiny_policy(), None, *parts)
    run = Run(*made, Shards(1), ALONE)
    return {f.name: str(f.problems[0]) for f in judge_tokens(run, counts) if f.problems}


def test_each_bound_on_tokens_has_its_problem():
    # 8 150 + 48 = 8 198 positions, of 8 192
    assert list(wrong(COUNTS)) == ["prompts"]
    assert "8150 + 48 tokens; allowed: up to 8192" in wrong(COUNTS)["prompts"]
    good = replace(COUNTS, prompts={"dots": Lengths(20, 30, 8144)})
    assert wrong(good) == {}
    assert "is 5; allowed: 4" in wrong(replace(good, written_image_tokens=(5, 5)))["image tokens"]
    assert "51.0%" in wrong(replace(good, cut_heldout={"dots": 0.51}))["answers"]
    assert "6.0%" in wrong(replace(good, cut={"dots": 0.06}))["answers"]
    assert "is 1 (zebra); allowed: none" in wrong(replace(good, unknown_words=["zebra"]))["words"]


def test_memory_adds_what_comes_later_and_time_adds_the_stages():
    mib = 2**20
    cost = Cost(
        weight_bytes=10 * mib,
        gradient_bytes=10 * mib,
        optimizer_bytes=20 * mib,
        pixel_bytes=5 * mib,
        feature_bytes=30 * mib,
        activation_bytes=40 * mib,
        peak_bytes=50 * mib,
        machine_bytes=100 * mib,
        times={"sft": Part(seconds=0.5, times=100), "rl": Part(seconds=2.0, times=20)},
    )
    memory, time = judge_cost(cost)
    assert memory.text.startswith("90 MiB of 100 MiB") and not memory.problems
    assert time.text.startswith("about 90 s")  # 50 + 40
    (memory, _) = judge_cost(replace(cost, feature_bytes=31 * mib))
    assert "memory is 91 MiB; allowed: up to 90 MiB" in str(memory.problems[0])
