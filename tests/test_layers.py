"""Imports point one way, and the scoring side stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "data_specs": set(),
    "verifiers": {"data_specs"},
    "tasks": {"data_specs", "verifiers"},
    "vl": {"data_specs", "verifiers"},
    "recipes": {"data_specs", "verifiers", "tasks", "vl"},
}
HEAVY = {"torch", "transformers", "torchvision", "accelerate", "peft"}


def imported(source):
    """Top-level names that a module imports, wherever in the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value).split(".")[0]


def forbidden(package, source):
    """What a module of `package` imports although it may not."""
    barred = set(ALLOWED) - ALLOWED[package] - {package}
    if package in ("data_specs", "verifiers", "tasks"):
        barred |= HEAVY
    return sorted(barred & set(imported(source)))


MODULES = [
    pytest.param(package, path, id=str(path.relative_to(ROOT)))
    for package in ALLOWED
    for path in sorted((ROOT / package).rglob("*.py"))
]


@pytest.mark.parametrize(("package", "path"), MODULES)
def test_imports_point_downwards(package, path):
    assert forbidden(package, path.read_text()) == []


def test_an_import_that_points_upwards_would_be_found():
    assert forbidden("tasks", "import vl.train") == ["vl"]
    assert forbidden("vl", "def f():\n    from tasks.check import x") == ["tasks"]
    assert forbidden("verifiers", "import torch.nn as nn") == ["torch"]
    assert forbidden("data_specs", "importlib.import_module('verifiers.pool')") == ["verifiers"]
    assert forbidden("recipes", "import vl, tasks, verifiers, data_specs, torch") == []


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


LOADED = "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"


def test_the_scoring_side_loads_no_torch():
    loaded = run(
        "import data_specs, verifiers, verifiers.kit, verifiers.worker, tasks, tasks.check;"
        + LOADED
    )
    assert HEAVY.isdisjoint(loaded)
    assert {"data_specs", "verifiers", "tasks"} <= set(loaded)


def test_importing_the_verifiers_is_light():
    loaded = run("import verifiers;" + LOADED)
    heavy = {"sympy", "math_verify", "scipy", "PIL", "rapidfuzz", "pyarrow"}
    service = {"fastapi", "uvicorn", "httptools", "orjson", "pydantic", "httpx"}
    assert (heavy | service).isdisjoint(loaded)


def test_torch_would_be_seen():
    pytest.importorskip("torch")
    assert "torch" in run("import torch;" + LOADED)


@pytest.mark.parametrize("package", ALLOWED)
def test_the_imported_package_is_ours(package):
    (path,) = run(f"import {package}; print({package}.__file__)")
    assert Path(path) == ROOT / package / "__init__.py"
