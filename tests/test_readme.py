"""The README's commands exist: `vl` takes them, `make` has the target, linked files are there."""

import re
import shlex
from pathlib import Path

import pytest

from recipes import RECIPES
from recipes.cli import build_parser
from recipes.commands_train import split_words
from recipes.overrides import override

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.strip()
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip().startswith(("vl ", "make "))
]


def test_the_readme_has_commands():
    assert {command.split()[0] for command in COMMANDS} == {"vl", "make"}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("vl ")])
def test_vl_takes_the_command(command):
    words = shlex.split(command, comments=True)[1:]
    arguments, rest = build_parser().parse_known_args(words)
    if not getattr(arguments, "takes_overrides", False):
        assert rest == []
        return
    name, changes = split_words(rest)
    if name in RECIPES:
        override(RECIPES[name](smoke=arguments.smoke), changes)
    else:
        assert arguments.resume or str(name).endswith("config.json")


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_has_the_target(command):
    words = shlex.split(command, comments=True)[1:]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    variables = re.findall(r"^([A-Z]+) \??[:?]?=", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in words:
        assert word in targets or word.partition("=")[0] in variables


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_layout_names_what_there_is():
    for folder in re.findall(r"^(\w+)/ ", README, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder
