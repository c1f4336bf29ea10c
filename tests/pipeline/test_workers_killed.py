"""A worker dies or an interrupt comes at any moment of the pool: it ends by name, and no process waits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support import forked
from tests.support.records import ROOT

POOL = (
    f"import sys\nsys.path.insert(0, {str(ROOT)!r})"
    '''
import itertools, multiprocessing, os, signal, threading, time
import psutil
from corpus.pipeline.errors import WorkerError
from corpus.pipeline.workers import run_pieces
from tests.support.processes import workers_of

def short(number):
    return number

def long(number):
    if number == 3:
        threading.Thread(target=die_in, args=("_send",), daemon=True).start()
    return b"x" * (80 << 20)

def receive(data):
    if data[:1] == b"0":
        threading.Thread(target=die_in, args=("_recv",), daemon=True).start()
    return len(data)

def die_in(name):
    """End this worker while it writes to a pipe or reads from one."""
    while True:
        frame = sys._current_frames()[threading.main_thread().ident]
        if frame.f_code.co_name == name and frame.f_locals.get("remaining", 0) != 4:  # 4: waits for a piece
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.0001)

def kill_idle(which):
    time.sleep(0.3)  # by now both wait for a piece
    workers_of(psutil.Process())[which].kill()

def interrupted_starts(which):
    """Ctrl-C comes when a worker runs that the pool has not noted yet."""
    kind = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn").Process
    whole, started = kind.start, []
    def start(process):
        whole(process)
        started.append(process)
        if len(started) == which:
            time.sleep(1.0)
            raise KeyboardInterrupt
    kind.start = start

def interrupted_at_call(which):
    """Ctrl-C comes at one of the calls and returns of the main thread, also where it holds a lock."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it would be ignored
    calls = itertools.count()
    def strike(*_):
        if next(calls) == which:
            signal.raise_signal(signal.SIGINT)
    sys.setprofile(strike)

def pieces(how):
    if how in {"blocked", "receiving"}:  # larger than a pipe, so there is always one half written
        return (b"%d" % number + bytes(40 << 20) for number in range(9))
    return range(4)

if __name__ == "__main__":
    how = sys.argv[1]
    try:
        if how == "starting":
            interrupted_starts(int(sys.argv[2]))
        if how == "call":
            interrupted_at_call(int(sys.argv[2]))
        work = {"sending": long, "blocked": len, "receiving": receive}.get(how, short)
        for result in run_pieces(work, pieces(how), workers=2):
            if how == "idle" and result == 3:
                kill_idle(int(sys.argv[2]))
            if how == "blocked":
                raise KeyboardInterrupt
        sys.setprofile(None)
        print("done")
    except WorkerError:
        print("WorkerError")
    except KeyboardInterrupt:
        print("interrupted")
'''
)


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_that_dies_when_all_is_done_holds_nobody_up(tmp_path: Path, which: int) -> None:
    assert pool(tmp_path, "idle", str(which)) == "done"


@pytest.mark.parametrize("how", ["sending", "receiving"])
def test_a_worker_that_dies_while_it_hands_over_holds_nobody_up(tmp_path: Path, how: str) -> None:
    assert pool(tmp_path, how) == "WorkerError"


@pytest.mark.parametrize("which", [1, 2])
def test_an_interrupt_while_workers_start_holds_nobody_up(tmp_path: Path, which: int) -> None:
    assert pool(tmp_path, "starting", str(which)) == "interrupted"


@pytest.mark.parametrize("which", range(100, 1500, 100))
def test_an_interrupt_while_a_lock_is_held_holds_nobody_up(tmp_path: Path, which: int) -> None:
    assert pool(tmp_path, "call", str(which)) == "interrupted"


def test_an_interrupt_while_a_piece_is_handed_out_holds_nobody_up(tmp_path: Path) -> None:
    assert pool(tmp_path, "blocked") == "interrupted"


def pool(folder: Path, *arguments: str) -> str:
    script = folder / "pool.py"
    script.write_text(POOL)
    done = forked.run([sys.executable, script, *arguments], timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
