"""Verdicts a CPU second against V-Triune's reward code, in process and through servers.

    python benchmarks/rewards.py /path/to/One-RL-to-See-Them-All [--rounds 5] [--only boxes math]

Peer and candidate take turns in one process; each figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reward_http
from reward_cases import Case, box_cases, many_boxes, math_cases

from verifiers import ScoreContext, score, score_many
from verifiers.pool import close_pools, score_batch

CONTEXT = ScoreContext(progress=0.08)
PARTS = ("import", "boxes", "math", "bombs", "crowd", "http")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vtriune", type=Path, help="checkout of One-RL-to-See-Them-All")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=8.0, help="of load per server and kind")
    options = parser.parse_args()
    if "import" in options.only:
        time_import()
    if set(options.only) & {"boxes", "math", "bombs", "crowd"}:
        peer = Peer(options.vtriune)
    if "boxes" in options.only:
        cases = box_cases(192, options.seed)
        compare("boxes, one by one", cases, peer.run, one_by_one, options.rounds)
        compare("boxes, batches of 64", cases, peer.run, in_batches, options.rounds)
    if "math" in options.only:
        cases = math_cases(300, options.seed)
        compare("math, one by one", cases, peer.run, one_by_one, options.rounds)
        compare("math, killable pool", cases, peer.run, in_pool, options.rounds)
    if "bombs" in options.only:
        cases = math_cases(100, options.seed, bomb_share=0.02)
        compare("math, 2 % bombs", cases, peer.run, one_by_one, min(options.rounds, 3))
    if "crowd" in options.only:
        crowd = [many_boxes(300, options.seed)]
        ours = statistics.median(clock(one_by_one, crowd) for _ in range(options.rounds))
        print(f"{'300 boxes in one answer':26} {'':>12} {1e3 * ours:9.1f} ms", flush=True)
        theirs = clock(peer.run, crowd)
        print(f"{'  the reference':26} {theirs:10.1f} s   x{theirs / ours:.0f}", flush=True)
    close_pools()
    if "http" in options.only:
        folder = options.vtriune / "reward_server"
        reward_http.compare(folder, options.seed, options.seconds)


class Peer:
    """V-Triune's verifiers, used as its service uses them."""

    def __init__(self, root: Path) -> None:
        os.environ["DET_IOU_THRESHOLD"] = "dynamic"
        sys.path.insert(0, str(root / "reward_server"))
        import verify  # pyright: ignore[reportMissingImports]

        logging.disable(logging.CRITICAL)
        self._verifiers = verify.Verifier

    def run(self, cases: list[Case]) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            for case in cases:
                more: dict[str, Any] = {}
                if case.ratio:
                    more = {"det_verifier_normalized": False, "det_reward_ratio": dict(case.ratio)}
                build = self._verifiers.get(case.verifier)
                verifier = build(is_training=True, step=8, total_steps=100, **more)
                verifier.verify_format(case.response)
                verifier.verify_accuracy(case.response, case.solution)


def one_by_one(cases: list[Case]) -> None:
    for case in cases:
        score(case.sample(), case.response, CONTEXT)


def in_batches(cases: list[Case]) -> None:
    for start in range(0, len(cases), 64):
        part = cases[start : start + 64]
        score_many([(case.sample(), case.response) for case in part], CONTEXT)


def in_pool(cases: list[Case]) -> None:
    score_batch([(case.sample(), case.response) for case in cases], CONTEXT, workers=1)


def clock(run: Callable[[list[Case]], None], cases: list[Case]) -> float:
    """CPU seconds of this process and of all it has started."""
    before = cpu_seconds()
    run(cases)
    return cpu_seconds() - before


def cpu_seconds() -> float:
    return time.process_time() + reward_http.cpu_of_children(os.getpid())


def compare(
    name: str,
    cases: list[Case],
    theirs: Callable[[list[Case]], None],
    ours: Callable[[list[Case]], None],
    rounds: int,
) -> None:
    ours(cases)  # references parsed, workers started: what a run has after its first step
    pairs = [(clock(theirs, cases), clock(ours, cases)) for _ in range(rounds)]
    rates = [statistics.median(len(cases) / pair[side] for pair in pairs) for side in (0, 1)]
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{name:26} {rates[0]:10.0f}/s {rates[1]:10.0f}/s   x{ratio:.1f}", flush=True)


def time_import() -> None:
    """Wall seconds of `import verifiers` in a fresh process, beyond those of an empty one."""
    code = "import time; t = time.perf_counter(); import verifiers; print(time.perf_counter() - t)"
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(5)
    ]
    print(f"{'import verifiers':26} {'':>12} {statistics.median(runs):9.2f} s", flush=True)


if __name__ == "__main__":
    main()
