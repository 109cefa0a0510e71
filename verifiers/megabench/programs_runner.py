"""Runs one program on several inputs, each run confined; a script for a bare interpreter.

Reads {"code", "inputs", "plain"} as JSON from standard input and writes {"outputs"}: per input the
text that was printed, or null. Each run is a fork with limits on processor time, memory and files,
an audit hook that leaves it no file but Python's own modules to read, and a system call filter
(Linux seccomp) without sockets, programs, processes, signals, or any change to a file. Where there
is no such filter the answer is {"refused"}: nothing runs unconfined. `plain` runs the program as
Python would; otherwise with upstream's quirks: names of its own scope are hidden from its functions
unless it holds `if __name__ == "__main__":`, and only `input()` is fed.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import importlib
import io
import json
import os
import pickle
import resource
import select
import signal
import struct
import sys
import threading
import time
from typing import Any

TIME_LIMIT_S = 2.0
"""Longest run, less the time in which the machine was busy with others."""
_WALL_LIMIT_S = 20.0
_MEMORY_LIMIT_BYTES = 2 << 30
_OUTPUT_LIMIT_BYTES = 1 << 16
"""Upstream's pipe: a longer output never arrives."""
_MAIN_BLOCK = 'if __name__ == "__main__":'

# Names that upstream's own module lends to a program without a main block.
_LENT = ("io", "json", "multiprocessing", "pathlib")

# audit architecture; open, openat, clone, clone3 and what is refused, by system call number
_SYSTEM_CALLS: dict[str, tuple[int, int | None, int, int, int, tuple[int, ...]]] = {
    "x86_64": (
        0xC000003E, 2, 257, 56, 435,
        (41, 42, 43, 44, 45, 46, 47, 49, 50, 53, 57, 58, 59, 62, 76, 77, 82, 83, 84, 85, 86, 87, 88,
         90, 91, 92, 93, 94, 101, 129, 132, 133, 155, 161, 165, 166, 200, 234, 235, 258, 259, 260,
         261, 263, 264, 265, 266, 268, 272, 280, 285, 288, 297, 299, 307, 308, 310, 311, 316, 321,
         322, 323, 424, 425, 426, 427, 434, 437, 438, 452),
    ),
    "aarch64": (
        0xC00000B7, None, 56, 220, 435,
        (33, 34, 35, 36, 37, 38, 39, 40, 41, 45, 46, 47, 51, 52, 53, 54, 55, 88, 97, 117, 129, 130,
         131, 138, 198, 199, 200, 201, 202, 203, 206, 207, 211, 212, 221, 240, 242, 243, 268, 269,
         270, 271, 276, 280, 281, 282, 424, 425, 426, 427, 434, 437, 438, 452),
    ),
}  # fmt: skip

_ALLOWED_EVENTS = frozenset(
    (
        "import", "exec", "compile", "marshal.loads", "marshal.load", "builtins.id",
        "sys._getframe", "open", "object.__getattr__", "object.__setattr__",
        "object.__delattr__", "code.__new__", "function.__new__", "os.listdir", "os.scandir",
        "time.sleep", "builtins.input", "builtins.input/result", "sys.excepthook",
        "sys.unraisablehook", "array.__new__", "os.putenv", "os.unsetenv",
       
        "_thread.start_new_thread",
        "_thread.start_joinable_thread", "pickle.find_class",
        "re.compile", "sys.set_asyncgen_hooks_firstiter",
        "sys.set_asyncgen_hooks_finalizer", "sys._getframemodulename", "numpy.load",
    )
)  # fmt: skip
"""Audit events that a program may cause; `open` is looked at more closely."""


def main() -> None:
    """One job from standard input to standard output."""
    job = json.loads(sys.stdin.buffer.read())
    answer = os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: ends with its parent
    code: str = job["code"]
    plain: bool = job["plain"]
    if not sys.platform.startswith("linux") or os.uname().machine not in _SYSTEM_CALLS:
        json.dump({"refused": "programs can be confined on Linux, x86_64 or aarch64, only"}, answer)
    else:
        lent = {name: importlib.import_module(name) for name in _LENT if name in code}
        outputs = [_run(code, text, plain, lent) for text in job["inputs"]]
        if any(output == _NOT_CONFINED for output in outputs):
            json.dump({"refused": "this system lets no program be confined (seccomp)"}, answer)
        else:
            json.dump({"outputs": outputs}, answer)
    answer.close()


_NOT_CONFINED = "\0not confined"


def _run(code: str, text: str, plain: bool, lent: dict[str, Any]) -> str | None:
    """What a fork of this process prints with the code; None if it exceeds a limit or dies."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        status = 1
        try:
            status = _child(theirs, code, text, plain, lent)
        finally:
            os._exit(status)
    os.close(theirs)
    try:
        answer = _collected(child, ours)
    finally:
        os.close(ours)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    try:
        return json.loads(answer)[0] if answer else None
    except ValueError:  # cut off
        return None


def _collected(child: int, pipe: int) -> bytes:
    """All that the child writes until it closes the pipe; nothing if it takes too long."""
    start = time.monotonic()
    pieces: list[bytes] = []
    while True:
        if select.select([pipe], [], [], 0.05)[0]:
            piece = os.read(pipe, 1 << 16)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
        elapsed = time.monotonic() - start
        if elapsed > _WALL_LIMIT_S:
            return b""
        if elapsed > TIME_LIMIT_S and elapsed - _waited_s(child) > TIME_LIMIT_S:
            return b""


def _waited_s(process: int) -> float:
    """Seconds for which a process could have run but had no processor; 0 if unknown."""
    try:
        with open(f"/proc/{process}/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _child(pipe: int, code: str, text: str, plain: bool, lent: dict[str, Any]) -> int:
    """Confines this process, runs the code, writes the result; the exit status."""
    send = os.write
    dump = json.dumps
    for limit, value in (
        (resource.RLIMIT_AS, _MEMORY_LIMIT_BYTES),
        (resource.RLIMIT_CPU, int(TIME_LIMIT_S) + 1),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    if not _filter_system_calls():
        send(pipe, dump([_NOT_CONFINED]).encode())
        return 0
    sys.addaudithook(_refuse_all_but(tuple({*sys.path, sys.prefix, sys.base_prefix} - {""})))
    # Neither this script nor what it has imported for itself is the program's to use.
    sys.modules["__main__"] = type(sys)("__main__")
    for name in [name for name in sys.modules if name.split(".")[0] in ("ctypes", "_ctypes")]:
        del sys.modules[name]
    sys.argv = [""]
    result = _plain_output(code, text) if plain else _quirky_output(code, text, lent)
    threading._shutdown()  # type: ignore[attr-defined]  # threads of the program end first
    data = dump([result]).encode()
    while data:
        data = data[send(pipe, data) :]
    return 0


def _plain_output(code: str, text: str) -> str:
    """The program as `python program.py < input` would run it."""
    printed = io.BytesIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    sys.stdout = io.TextIOWrapper(printed, write_through=True)
    try:
        exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})
    except SystemExit:
        pass
    except Exception as error:  # noqa: BLE001  # the program's own failure
        return f"ERROR during execution: {error}"
    return printed.getvalue().decode(errors="replace").rstrip()


def _quirky_output(code: str, text: str, lent: dict[str, Any]) -> str | None:
    """The program as upstream runs it. None: it exits, or prints more than its pipe holds."""
    printed = io.StringIO()
    lines = iter(text.splitlines())

    def read_line(*_: object, **__: object) -> str:
        return next(lines)  # StopIteration at the end, not EOFError

    builtins.input = read_line
    sys.stdin = io.StringIO()
    sys.stdout = printed
    try:
        if _MAIN_BLOCK in code:
            exec(code, {"__name__": "__main__"})
        else:
            names = {"self": None, "output_queue": None, "contains_main_block": False}
            scope: dict[str, Any] = names | {"input_str": text, "stdout": printed}
            module = {"__name__": "metrics.scoring.program_judge", **lent}
            if sys.version_info < (3, 12):
                exec(_with_inlined_comprehensions(code, module, scope), module, scope)
            else:
                exec(code, module, scope)
    except Exception as error:  # noqa: BLE001  # the program's own failure
        result = f"ERROR during execution: {error}"
    except BaseException:  # noqa: BLE001  # exit(): upstream waits in vain
        return None
    else:
        result = printed.getvalue().rstrip()
    return None if len(pickle.dumps(result)) + 4 > _OUTPUT_LIMIT_BYTES else result


def _with_inlined_comprehensions(code: str, module: dict[str, Any], scope: dict[str, Any]) -> Any:
    """The code for Python 3.11 such that comprehensions outside of functions see the scope.

    From 3.12 on they do so by themselves (PEP 709), and upstream runs on 3.12.
    """

    def look(name: str) -> Any:
        for names in (scope, module, vars(builtins)):
            if name in names:
                return names[name]
        raise NameError(f"name {name!r} is not defined")

    module["__look"] = look
    tree = _Inliner().visit(ast.parse(code, "<string>"))
    return compile(ast.fix_missing_locations(tree), "<string>", "exec")


class _Inliner(ast.NodeTransformer):
    """Has the free names of comprehensions looked up in the scope around them."""

    def __init__(self) -> None:
        self.bound: frozenset[str] | None = None
        """Names that the comprehensions around bind; None outside of any."""

    def visit_FunctionDef(self, node: Any) -> Any:
        return node

    visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = visit_FunctionDef

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> Any:
        node.generators[0].iter = self.visit(node.generators[0].iter)
        return node

    def visit_Name(self, node: ast.Name) -> Any:
        if self.bound is None or not isinstance(node.ctx, ast.Load) or node.id in self.bound:
            return node
        look = ast.Name("__look", ast.Load())
        return ast.Call(look, [ast.Constant(node.id)], [])

    def visit_ListComp(self, node: Any) -> Any:
        first = node.generators[0]
        outer_iter = self.visit(first.iter)
        first.iter = ast.Constant(None)
        around = self.bound
        targets = {
            name.id
            for generator in node.generators
            for name in ast.walk(generator.target)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        }
        self.bound = (around or frozenset()) | targets
        self.generic_visit(node)
        self.bound = around
        first.iter = outer_iter
        return node

    visit_SetComp = visit_DictComp = visit_ListComp


def _refuse_all_but(readable: tuple[str, ...]) -> Any:
    """An audit hook without file access, but for reading what lies under some folders."""
    access = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event not in _ALLOWED_EVENTS:
            raise PermissionError(f"{event} is not allowed here")
        if event == "import" and str(args[0]).split(".")[0] in ("ctypes", "_ctypes"):
            raise ImportError("ctypes is not allowed here")
        if event in ("open", "os.listdir", "os.scandir"):
            path = args[0]
            if isinstance(path, int):
                raise PermissionError("open of a descriptor is not allowed here")
            path = os.path.normpath(os.fsdecode(path if path is not None else "."))
            writes = event == "open" and isinstance(args[2], int) and args[2] & access
            if writes or not any(path == top or path.startswith(top + "/") for top in readable):
                raise PermissionError(f"{event} of {path!r} is not allowed here")

    return hook


def _filter_system_calls() -> bool:
    """Installs the filter for this process and its threads; whether that worked."""
    architecture, open_, openat, clone, clone3, refused = _SYSTEM_CALLS[os.uname().machine]
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    load, equal, any_bit, at_least, give = 0x20, 0x15, 0x45, 0x35, 0x06
    allow, no, absent, kill = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
    code = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    if open_ is not None:  # x86_64: the numbers of its x32 twin
        code += [(at_least, 0, 1, 0x40000000), (give, 0, 0, kill)]
    for number in refused:
        code += [(equal, 0, 1, number), (give, 0, 0, no)]
    code += [(equal, 0, 1, clone3), (give, 0, 0, absent)]  # the C library then tries clone
    for number, offset, bits, if_set, if_not in (
        (open_, 24, writes, no, allow),
        (openat, 32, writes, no, allow),
        (clone, 16, 0x10000, allow, no),  # CLONE_THREAD
    ):
        if number is not None:
            code += [(equal, 0, 4, number), (load, 0, 0, offset), (any_bit, 0, 1, bits)]
            code += [(give, 0, 0, if_set), (give, 0, 0, if_not)]
    code.append((give, 0, 0, allow))
    packed = b"".join(struct.pack("HBBI", *step) for step in code)
    program = ctypes.create_string_buffer(packed, len(packed))
    header = struct.pack("HL", len(code), ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # PR_SET_NO_NEW_PRIVS
        return False
    return libc.prctl(22, 2, ctypes.c_char_p(header)) == 0  # PR_SET_SECCOMP, a filter


if __name__ == "__main__":
    main()
