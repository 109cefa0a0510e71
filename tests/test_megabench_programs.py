"""Programs of a reply: official scores, upstream's quirks, and what no program may do."""

import json
import subprocess
import sys

import pytest

from verifiers.megabench import Unscored, programs
from verifiers.megabench.programs import program_judge

CASE = {"input": ["2 3"], "expected": "5\n"}


def output(code, text="2 3\n", mode="compat"):
    (found,) = programs._outputs(code, [text], mode)
    return found


def test_the_score_is_the_share_of_tests_passed():
    code = "a, b = map(int, input().split())\nprint(a + b)"
    tests = [CASE, {"input": ["4 4"], "expected": "8"}, {"input": ["1 1"], "expected": "3"}]
    assert program_judge(code, {"test_case": tests}) == 2 / 3
    assert program_judge(code, {"test_case": CASE}) == 1
    assert program_judge(code, {"test_case": []}) == 0
    assert program_judge(None, {"test_case": CASE}) == 0
    assert program_judge(code, {}) == 0


@pytest.mark.parametrize(
    ("code", "compat", "sound"),
    [
        ("n = 2\ndef f():\n    return n\nprint(f())", "ERROR", "2"),
        ("n = 2\nprint([n * i for i in range(2)])", "[0, 2]", "[0, 2]"),
        ("n = 2\nprint([[i + n for i in range(j)] for j in range(n)])", "[[], [2]]", "[[], [2]]"),
        ("n = 2\nprint(sum(n for i in range(2)))", "ERROR", "4"),
        ("def f(n):\n    return n and f(n - 1)\nprint(f(3))", "ERROR", "0"),
        ("def f():\n    print(1)\nif __name__ == '__main__':\n    f()", "", "1"),
        ('def f():\n    print(1)\nif __name__ == "__main__":\n    f()', "1", "1"),
        ("import sys\nprint(len(sys.stdin.read()))", "0", "4"),
        ("print(1)\nexit()", None, "1"),
        ("print('x' * 70000)", None, "x" * 70000),
        ("input()\ntry:\n    input()\nexcept EOFError:\n    print(1)", "ERROR", "1"),
        ("def f():\n    return json.dumps(1)\nprint(f())", "1", "ERROR"),
    ],
)
def test_only_compat_has_upstreams_quirks(code, compat, sound):
    for mode, wanted in (("compat", compat), ("sound", sound)):
        found = output(code, mode=mode)
        if wanted == "ERROR":
            assert found is not None and found.startswith("ERROR during execution")
        else:
            assert found == wanted


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd')",
        "open('/tmp/x', 'w')",
        "import socket\nsocket.socket()",
        "import os\nos.system('true')",
        "import subprocess\nsubprocess.run(['true'])",
        "import os\nos.fork()",
        "import os\nos.kill(os.getppid(), 9)",
        "import os\nos.remove('/tmp/x')",
        "import os\nos.listdir('/')",
        "import ctypes",
        "x = [0] * 10**10",
    ],
)
@pytest.mark.parametrize("mode", ["compat", "sound"])
def test_a_program_has_no_files_network_processes_or_much_memory(code, mode):
    found = output(code, mode=mode)
    assert found is not None and found.startswith("ERROR during execution")


def test_the_system_call_filter_holds_without_the_audit_hook():
    attempts = (
        "socket.socket",
        "lambda: os.open('/tmp/x', os.O_WRONLY | os.O_CREAT)",
        "os.fork",
        "lambda: os.kill(os.getppid(), 0)",
        "lambda: os.execv('/bin/true', ['true'])",
        "lambda: os.unlink('/tmp/x')",
        "lambda: os.mkdir('/tmp/x')",
        "lambda: os.posix_spawn('/bin/true', ['true'], {})",
    )
    script = (
        "import os, runpy, socket, sys, threading\n"
        "runner = runpy.run_path(sys.argv[1])\n"
        "assert runner['_filter_system_calls']()\n"
        f"for attempt in ({', '.join(attempts)}):\n"
        "    try:\n        attempt()\n        print('done')\n"
        "    except PermissionError:\n        print('refused')\n"
        "thread = threading.Thread(target=print, args=['thread'])\n"
        "thread.start()\nthread.join()\n"
        "print(len(open(os.__file__).read()) > 0)\n"
    )
    command = [sys.executable, "-I", "-c", script, str(programs._RUNNER)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["refused"] * len(attempts) + ["thread", "True"], found.stderr


def test_a_program_that_never_ends_fails_and_others_still_run():
    assert (
        programs._outputs(
            "while input() == 'a':\n    pass\nprint(1)", ["a\n" * 9**6, "b\n"], "compat"
        )[1]
        == "1"
    )
    assert output("import time\ntime.sleep(9)") is None
    assert output("import os\nos._exit(0)") is None


def test_where_nothing_confines_a_program_it_is_unscored(monkeypatch, tmp_path):
    runner = tmp_path / "runner.py"
    runner.write_text('print(\'{"refused": "no filter here"}\')')
    monkeypatch.setattr(programs, "_RUNNER", runner)
    with pytest.raises(Unscored, match="no filter"):
        program_judge("print(5)", {"test_case": CASE})
    runner.write_text("")
    with pytest.raises(Unscored, match="without a word"):
        program_judge("print(5)", {"test_case": CASE})


def test_half_a_surrogate_pair_in_the_code_is_the_programs_fault():
    code = json.loads('"print(5) # \\ud800"')
    assert program_judge(code, {"test_case": CASE}) == 0
