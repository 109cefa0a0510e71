"""What `pip install vl-triune` alone must do, with every package of the extras out of reach."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from data_specs import Message, RewardSpec, Sample, write_samples

ROOT = Path(__file__).parents[1]
BOX = "<answer>[{'bbox_2d': [10, 10, 110, 110], 'label': 'cat'}]</answer>"
OURS = {"data_specs", "verifiers", "tasks", "vl", "recipes"}
# Python imports `sitecustomize` at every start, so that the scoring workers are cut off as well.
BLOCKER = """
import json, sys
from pathlib import Path

class Blocker:
    names = set(json.loads(Path(__file__).with_name("blocked.json").read_text()))

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)

sys.meta_path.insert(0, Blocker())
"""


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_with(requirements):
    """Names of the distributions that these requirements bring in."""
    found, todo = set(), list(requirements)
    while todo:
        requirement = Requirement(todo.pop())
        name = canonical(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if name in found:
            continue
        found.add(name)
        try:
            todo += requires(name) or []
        except PackageNotFoundError:
            pytest.fail(f"{name} is a dependency of the base install and is not installed")
    return found


def outside_of_the_base():
    """Top-level modules of everything installed here that the base install does not bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = installed_with(project["dependencies"])
    return sorted(
        module
        for module, owners in packages_distributions().items()
        if module not in OURS and not any(canonical(owner) in base for owner in owners)
    )


def blocked(folder, names):
    (folder / "sitecustomize.py").write_text(BLOCKER)
    (folder / "blocked.json").write_text(json.dumps(sorted(names)))
    return folder


@pytest.fixture(scope="module")
def run_in_base(tmp_path_factory):
    """Runs code where nothing but the base install can be imported, less `without`."""
    outside = outside_of_the_base()

    def run(code, *arguments, without=()):
        folder = blocked(tmp_path_factory.mktemp("site"), [*outside, *without])
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
            check=False,
        )

    return run


SCORE = """
import sys
from verifiers.adapters.trl import TrlReward
from verifiers.adapters.verl import compute_score

def judge(verifier, response, truth, **params):
    row = {"verifier": verifier, "ground_truth": truth, "verifier_parm": params}
    by_verl = compute_score("s", response, truth, {"reward_model": row}, iou_rule=0.5)
    by_trl = TrlReward()([""], [response], data_source=["s"], reward_model=[row])
    return by_verl["score"], by_trl[0]

if __name__ == "__main__":
    print(judge("mathverify", r"\\boxed{\\frac{\\sqrt{8}}{2}}", r"\\boxed{\\sqrt{2}}"))
    print(judge("text", r"\\boxed{colas}", r"\\boxed{cola}", metric="cer"))
    print(judge("detection", sys.argv[1], sys.argv[1]))
"""
COMMAND = "import sys; from recipes.cli import main; sys.exit(main())"
IMPORTS = "import data_specs, verifiers.kit, tasks.check, verifiers.adapters.verl, "
IMPORTS += "verifiers.adapters.trl, verifiers.worker"


def test_the_extras_are_out_of_reach(run_in_base):
    outside = set(outside_of_the_base())
    assert {"torch", "transformers", "pydantic", "jinja2", "fastapi", "httpx", "trl"} <= outside
    assert {"numpy", "PIL", "pyarrow", "sympy", "rich"}.isdisjoint(outside)
    done = run_in_base("import torch")
    assert "No module named 'torch' (blocked)" in done.stderr


def test_the_scoring_side_is_imported(run_in_base):
    done = run_in_base(IMPORTS)
    assert (done.returncode, done.stderr) == (0, "")


def test_rows_are_scored_in_killable_workers(run_in_base):
    done = run_in_base(SCORE, BOX)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["(1.0, 1.0)", "(0.75, 0.75)", "(1.0, 1.0)"]


@pytest.mark.parametrize("verb", ["score", "serve", "data"])
def test_commands_show_their_help(run_in_base, verb):
    done = run_in_base(COMMAND, verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"vl {verb} " in done.stdout


def test_rows_are_checked(run_in_base, tmp_path):
    rows = [
        Sample(
            id=str(index),
            source="made",
            task="math",
            messages=(Message(role="user", content="What is 3 + 4?"),),
            images=(),
            reward=RewardSpec(verifier="number", answer=truth, ground_truth=truth),
        )
        for index, truth in enumerate((r"\boxed{7}", r"\boxed{}"))
    ]
    write_samples(rows[:1], tmp_path / "good.parquet")
    write_samples(rows, tmp_path / "bad.parquet")
    good = run_in_base(COMMAND, "data", "check", tmp_path / "good.parquet")
    assert good.returncode == 0, good.stderr
    bad = run_in_base(COMMAND, "data", "check", tmp_path / "bad.parquet")
    assert bad.returncode == 2
    assert "bad.parquet row 1" in bad.stdout + bad.stderr


@pytest.mark.parametrize(
    ("code", "arguments", "needed"),
    [(IMPORTS, (), "numpy"), (SCORE, (BOX,), "rapidfuzz"), (COMMAND, ("score", "-h"), "rich")],
)
def test_a_package_out_of_reach_would_be_missed(run_in_base, code, arguments, needed):
    done = run_in_base(code, *arguments, without=[needed])
    assert done.returncode != 0
    assert needed in done.stderr


def test_importing_the_adapters_loads_nothing_slow(run_in_base):
    loaded = run_in_base(
        "import sys, verifiers.adapters.verl, verifiers.adapters.trl;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    ).stdout.split()
    slow = {"sympy", "math_verify", "scipy", "rapidfuzz", "PIL", "rich", "pyarrow"}
    assert slow.isdisjoint(loaded)
    assert {"verifiers", "numpy"} <= set(loaded)
