"""The command line: help is quick, bad input ends with 2 and one message."""

import subprocess
import sys

import pytest

from recipes.cli import build_parser, main

COMMANDS = ["", "train", "eval", "predict", "report", "score", "data"]
COMMANDS += ["data build", "data check", "data show"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([*command.split(), "--help"])
    assert done.value.code == 0
    said = capsys.readouterr().out
    assert "example" in said and f"vl {command}".rstrip() in said


def test_help_loads_neither_torch_nor_the_data_packages():
    code = (
        "import sys\nfrom recipes.cli import build_parser\nbuild_parser().format_help()\n"
        "print(*{'torch', 'transformers', 'pydantic', 'pyarrow', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train", "which recipe? Name it first"),
        ("train orsta_tinny --out {tmp}/run", "known recipes: orsta_tiny"),
        ("train orsta_tiny --out {tmp}/run --rl.num_step 5", "--rl.num_steps"),
        ("train orsta_tiny --out {tmp}/run --seed", "--seed: a value is missing"),
        ("train orsta_tiny --out {tmp}/run --train_files {tmp}/no", "no"),
        ("train --resume", "--resume needs --out"),
        ("report {tmp}", "found no config.json"),
        ("score {tmp}/no.jsonl", "no such file"),
        ("predict --model {tmp} --image {tmp}/no.png --prompt x", "does not exist"),
        ("predict --model {tmp} --image {tmp} --prompt <image>x", "leave <image> out"),
        ("predict --model {tmp} --image {tmp}/text.png --prompt x", "is not a picture"),
        ("data build --out {tmp}", "not empty"),
        ("data build --out {tmp}/new --sources nothing", "nothing"),
        ("data build --out {tmp}/new --train-images 0", "0"),
    ],
)
def test_bad_input_ends_with_2_and_one_message(words, said, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    assert main([word.format(tmp=tmp_path) for word in words.split()]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_an_unknown_option_of_another_command_is_refused(capsys):
    with pytest.raises(SystemExit) as done:
        main(["report", "runs/x", "--rl.num_steps", "5"])
    assert done.value.code == 2


def test_the_recipe_may_stand_after_its_options():
    parsed, rest = build_parser().parse_known_args(
        ["train", "--out", "x", "orsta_tiny", "--seed", "1", "--control=false"]
    )
    assert parsed.out.name == "x" and rest == ["orsta_tiny", "--seed", "1", "--control=false"]


def test_a_missing_package_names_the_extra(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "vl.stage", None)

    def absent(*_):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("recipes.commands_train._check_rows", absent)
    assert main(["train", "orsta_tiny", "--out", str(tmp_path / "run")]) == 2
    assert "pip install 'vl-triune[train]'" in capsys.readouterr().err
