"""The scoring pool's processes: killed, orphaned, forked, idle, and used from everywhere."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_verifiers_cases import make

from verifiers import ScoringPool, score_batch, score_many
from verifiers.pool import close_pools

TESTS = str(Path(__file__).parent)
BAD = make("bad", "x")
NUMBERS = [(make("number", rf"\boxed{{{i}}}"), rf"\boxed{{{i - i % 2}}}") for i in range(400)]


@pytest.fixture(scope="module")
def pool():
    close_pools()  # those that other tests keep warm; several tests here count threads
    with ScoringPool(2, time_limit_s=0.3, preload=("pool_verifiers",)) as pool:
        yield pool


def zygote_of(pool):
    return int(pool.score_batch([(BAD, "fine")])[0].parts["parent"])


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_there(pid):
    """Whether a process runs; one that is dead and not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pids, seconds=10):
    end = time.monotonic() + seconds
    while any(is_there(pid) for pid in pids):
        assert time.monotonic() < end, f"still there: {[pid for pid in pids if is_there(pid)]}"
        time.sleep(0.01)


def run(code, *args):
    """A script from stdin: no file, no main guard. What it printed."""
    done = subprocess.run(
        [sys.executable, "-", TESTS, *args], input=code, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


SCRIPT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from test_verifiers_cases import make
from verifiers import ScoringPool, score_batch
BAD = make("bad", "x")
NUMBERS = [(make("number", "7"), answer) for answer in (r"\\boxed{7}", r"\\boxed{8}")]
"""


def test_workers_killed_under_load_change_no_verdict(pool):
    zygote = zygote_of(pool)
    before = pool.stats().restarts
    expected = score_many(NUMBERS) * 5
    for delay_s in range(20):
        future = pool.submit(NUMBERS * 5)
        time.sleep(delay_s / 1000)
        for pid in children_of(zygote):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert future.result() == expected
    assert pool.stats().restarts - before >= 20
    assert zygote_of(pool) == zygote


def test_a_killed_zygote_is_replaced_and_work_goes_on(pool):
    zygote = zygote_of(pool)
    workers = children_of(zygote)
    future = pool.submit([(BAD, "burn 9"), *NUMBERS * 20])
    while not pool.stats().busy:
        time.sleep(0.001)
    os.kill(zygote, signal.SIGKILL)
    verdicts = future.result()
    assert verdicts[0].status == "timeout"
    assert verdicts[1:] == score_many(NUMBERS) * 20
    assert zygote_of(pool) != zygote
    wait_until_gone([zygote, *workers])


def test_the_zygote_has_one_thread_and_its_own_session(pool):
    zygote = zygote_of(pool)
    assert "Threads:\t1\n" in Path(f"/proc/{zygote}/status").read_text()
    assert os.getsid(zygote) == zygote  # Ctrl-C in our terminal does not reach it
    assert os.readlink(f"/proc/{zygote}/fd/2") == "/dev/null"
    assert len(children_of(zygote)) == 2


def test_an_idle_pool_uses_no_processor(pool):
    close_pools()
    zygote = zygote_of(pool)
    stats = [Path(f"/proc/{pid}/stat") for pid in (zygote, *children_of(zygote))]
    (thread,) = [t for t in threading.enumerate() if t.name == "scoring-pool"]
    switches = Path(f"/proc/self/task/{thread.native_id}/status")

    def used():
        ticks = [path.read_text().rsplit(")", 1)[1].split()[11:13] for path in stats]
        return ticks, [line for line in switches.read_text().split("\n") if "ctxt" in line]

    time.sleep(0.2)  # workers of earlier tests may be ending
    before = used()
    time.sleep(0.3)
    assert used() == before


def test_eight_threads_share_a_pool(pool):
    results = {}

    def score(number):
        items = NUMBERS[number * 10 :]
        results[number] = [pool.score_batch(items) for _ in range(3)] == [score_many(items)] * 3

    threads = [threading.Thread(target=score, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(8), True)


def test_coroutines_share_a_pool(pool):
    async def score_all():
        batches = [pool.score_batch_async(NUMBERS[start:]) for start in range(0, 400, 50)]
        hung = asyncio.create_task(pool.score_batch_async([(BAD, "hang")]))
        done = await asyncio.gather(*batches)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hung, 0.01)
        return done

    expected = score_many(NUMBERS)
    assert asyncio.run(score_all()) == [expected[start:] for start in range(0, 400, 50)]


def test_a_killed_worker_takes_along_what_it_started(pool, tmp_path):
    marker = tmp_path / "pid"
    (verdict,) = pool.score_batch([(BAD, f"start {marker}")])
    assert verdict.status == "timeout"
    wait_until_gone([int(marker.read_text())])


def test_closing_ends_busy_workers():
    with ScoringPool(2, time_limit_s=60, preload=("pool_verifiers",)) as pool:
        zygote = zygote_of(pool)
        pool.submit([(BAD, "burn 9")] * 2)
        while pool.stats().busy < 2:
            time.sleep(0.01)
        workers = children_of(zygote)
    pool.close()
    assert len(workers) >= 2
    assert not any(is_there(pid) for pid in (zygote, *workers))


def test_a_killed_owner_leaves_nobody_behind():
    code = SCRIPT + (
        "pool = ScoringPool(2, time_limit_s=600, preload=('pool_verifiers',))\n"
        "parts = pool.score_batch([(BAD, 'fine')])[0].parts\n"
        "pool.submit([(BAD, 'burn 9'), (BAD, 'hang')])\n"
        "while pool.stats().busy < 2: pass\n"
        "print(int(parts['parent']), flush=True)\n"
        "sys.stdin.readline()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, TESTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        zygote = int(owner.stdout.readline())
        workers = children_of(zygote)
        assert len(workers) >= 2
        owner.kill()
    wait_until_gone([zygote, *workers])


def test_a_script_from_stdin_without_a_main_guard_prints_nothing_but_its_own():
    code = SCRIPT + (
        "pool = ScoringPool(1, preload=('pool_verifiers',))\n"
        "print([verdict.score for verdict in pool.score_batch(NUMBERS)])\n"
        "print([v.status for v in pool.score_batch([(BAD, 'say'), (BAD, 'crash')])])\n"
    )
    assert run(code) == "[1.0, 0.0]\n['ok', 'fault']\n"


def test_a_daemonic_process_can_have_a_pool():
    code = SCRIPT + (
        "import multiprocessing\n"
        "def main(): print([v.score for v in score_batch(NUMBERS, workers=1)], flush=True)\n"
        "process = multiprocessing.get_context('fork').Process(target=main, daemon=True)\n"
        "process.start(); process.join()\n"
    )
    assert run(code) == "[1.0, 0.0]\n"


def test_a_fork_of_the_owner_makes_its_own_pool_and_leaves_the_other_alone():
    code = SCRIPT + (
        "import warnings; warnings.simplefilter('ignore')\n"
        "num_open = len(os.listdir('/proc/self/fd'))\n"
        "pool = ScoringPool(1, preload=('pool_verifiers',))\n"
        "first = score_batch(NUMBERS, workers=1)\n"
        "parent = pool.score_batch([(BAD, 'fine')])[0].parts['parent']\n"
        "if os.fork() == 0:\n"
        "    assert len(os.listdir('/proc/self/fd')) == num_open\n"
        "    assert score_batch(NUMBERS, workers=1) == first\n"
        "    try: pool.score_batch(NUMBERS)\n"
        "    except RuntimeError as error: print('is a fork of it' in str(error), flush=True)\n"
        "    pool.close()\n"
        "    sys.exit()\n"
        "print(os.wait()[1])\n"
        "assert score_batch(NUMBERS, workers=1) == first\n"
        "print(pool.score_batch([(BAD, 'fine')])[0].parts['parent'] == parent)\n"
    )
    assert run(code) == "True\n0\nTrue\n"


def test_workers_stay_warm_between_batches():
    try:
        assert score_batch(NUMBERS, workers=1) == score_many(NUMBERS)
        threads = [thread for thread in threading.enumerate() if thread.name == "scoring-pool"]
        assert score_batch(NUMBERS, workers=1) == score_many(NUMBERS)
        assert threads == [t for t in threading.enumerate() if t.name == "scoring-pool"]
    finally:
        close_pools()
    assert len([t for t in threading.enumerate() if t.name == "scoring-pool"]) < len(threads)


def test_a_python_that_cannot_be_started_is_named(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with (
        ScoringPool(1) as pool,
        pytest.raises(RuntimeError, match=r"cannot be started: .*/no/such/python"),
    ):
        pool.score_batch(NUMBERS)


def test_a_module_that_cannot_be_loaded_is_named():
    with (
        ScoringPool(1, preload=("no_such_module",)) as pool,
        pytest.raises(RuntimeError, match=r"(?s)cannot be started: .*No module named 'no_such"),
    ):
        pool.score_batch(NUMBERS)


def test_where_processes_cannot_be_forked_the_way_out_is_named(monkeypatch):
    monkeypatch.delattr(os, "fork")
    with pytest.raises(OSError, match="workers=0"):
        ScoringPool(1)
