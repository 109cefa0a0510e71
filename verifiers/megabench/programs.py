"""Programs: what share of a task's tests does the code of a reply pass?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from verifiers.megabench.convert import metric
from verifiers.megabench.registry import Mode, Unscored

_RUNNER = Path(__file__).parent / "programs_runner.py"
_WALL_LIMIT_PER_TEST_S = 30.0
"""Only a machine that stands still lets a test take so long: the runner's own limit is 2 s."""


@metric
def program_judge(prediction: object, eval_context: dict[str, Any], mode: Mode) -> float:
    """Tests passed / tests; without tests 0. A test is what `input()` gives and what is printed.

    Raises: Unscored where programs cannot be confined (see programs_runner.py).
    """
    tests: Any = eval_context["test_case"]
    if isinstance(tests, dict):
        tests = [tests]
    if not tests:
        return 0
    inputs = ["\n".join(test["input"]) + "\n" for test in tests]
    expected = [test["expected"].rstrip() for test in tests]
    if not isinstance(prediction, str):
        return 0
    outputs = _outputs(prediction, inputs, mode)
    pairs = zip(outputs, expected, strict=True)
    return sum(output == wanted for output, wanted in pairs) / len(tests)


def _outputs(code: str, inputs: list[str], mode: Mode) -> list[str | None]:
    """What the code prints for each input, less space at the end; None: it gave no result."""
    job = json.dumps({"code": code, "inputs": inputs, "plain": mode == "sound"})
    runner = subprocess.Popen(
        [sys.executable, "-I", str(_RUNNER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"},
    )
    try:
        # ASCII in both directions: the code may hold half a surrogate pair
        reply, _ = runner.communicate(job.encode(), _WALL_LIMIT_PER_TEST_S * (len(inputs) + 1))
    except subprocess.TimeoutExpired:
        raise Unscored("the program runner took too long") from None
    finally:
        runner.kill()
        runner.wait()
    if not reply:
        raise Unscored(f"the program runner ended without a word, exit code {runner.returncode}")
    answer = json.loads(reply)
    if "refused" in answer:
        raise Unscored(answer["refused"])
    return answer["outputs"]
