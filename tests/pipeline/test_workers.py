"""Workers that are kept between the stages of a command."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest

from corpus.pipeline.workers import kept, run_pieces, start
from tests.support.pieces import end, fail_at_two, sign, whose


def stage(pieces: Sequence[int] = range(6), workers: int = 2) -> set[int]:
    """The workers that did some piece."""
    return set(run_pieces(whose, pieces, workers=workers))


def there() -> set[int]:
    """All workers, also those that have done no piece."""
    return {child.pid or 0 for child in multiprocessing.active_children()}


def gone(workers: set[int]) -> bool:
    return bool(workers) and not any(map(psutil.pid_exists, workers))


def test_kept_workers_do_the_next_stage_too_and_end_with_the_command() -> None:
    with kept():
        assert os.getpid() not in stage()
        first = there()
        assert len(first) == 2
        assert stage() <= first
        assert there() == first
    assert gone(first)
    assert not stage() & first


def interrupted_after(work: Callable[[], object], workers: set[int]) -> None:
    with kept():
        work()
        workers |= there()
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "work", [stage, partial(start, 2, partial(fail_at_two, 0), pieces=2)], ids=["a stage", "a start"]
)
def test_kept_workers_end_where_ctrl_c_comes_between_two_stages(work: Callable[[], object]) -> None:
    workers: set[int] = set()
    with pytest.raises(KeyboardInterrupt):
        interrupted_after(work, workers)
    assert gone(workers)


def test_workers_end_with_their_stage_where_nothing_keeps_them() -> None:
    assert gone(stage())


def test_a_stage_that_takes_no_more_than_it_needs_leaves_its_workers_to_the_next() -> None:
    with kept():
        made = run_pieces(whose, range(3), workers=2)
        for _ in range(3):
            next(made)
        del made  # the stage ends without asking whether there is more
        first = there()
        assert stage() <= first
        assert there() == first


@pytest.mark.filterwarnings("error")  # an exception in a thread of the pool would be shown to the user
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM] * 3)
def test_a_kept_worker_that_died_is_replaced(number: signal.Signals) -> None:
    with kept():
        stage()
        first = there()
        struck = multiprocessing.active_children()[0]
        os.kill(struck.pid or 0, number)
        struck.join(10)
        assert struck.pid not in stage()
        second = there()
        assert len(second) == 2
    assert gone(first | second)


def test_workers_of_a_stage_that_failed_are_not_kept() -> None:
    with kept():
        stage()
        first = there()
        with pytest.raises(ValueError, match="2"):
            list(run_pieces(fail_at_two, range(6), workers=2))
        assert gone(first)
        assert list(run_pieces(fail_at_two, [0, 1], workers=2)) == [0, 1]
    assert not there()


def test_fewer_workers_than_a_stage_wants_are_not_enough() -> None:
    with kept():
        stage(workers=2)
        few = there()
        stage(workers=3)
        more = there()
        assert len(more) == 3
        assert not few & more
        assert stage(workers=2) <= more
        assert there() == more


def test_workers_kept_within_outlive_what_is_within() -> None:
    with kept():
        with kept():
            stage()
            first = there()
        assert there() == first
        assert stage() <= first
    assert gone(first)


def test_started_workers_do_what_they_were_started_with_before_they_do_the_pieces(tmp_path: Path) -> None:
    with kept():
        start(2, partial(sign, tmp_path), pieces=2)
        first = there()
        assert stage() <= first
        assert there() == first == {int(path.name) for path in tmp_path.iterdir()}
    assert gone(first)


def test_what_a_worker_is_started_with_may_fail() -> None:
    with kept():
        start(2, partial(fail_at_two, 2), pieces=2)
        assert list(run_pieces(fail_at_two, [0, 1], workers=2)) == [0, 1]


def test_started_workers_that_died_are_replaced() -> None:
    with kept():
        start(2, partial(end, 1), pieces=2)
        first = there()
        for child in multiprocessing.active_children():
            child.join(10)
        assert not stage() & first
    assert gone(first)


def test_no_more_workers_are_started_than_there_will_be_pieces() -> None:
    with kept():
        start(2, partial(fail_at_two, 0), pieces=0)
        assert not there()
        start(2, partial(fail_at_two, 0), pieces=1)
        assert len(there()) == 1
        stage()
        assert len(there()) == 2


def test_a_single_piece_starts_a_single_worker() -> None:
    with kept():
        assert os.getpid() not in stage([0])
        assert len(there()) == 1


def test_one_worker_is_this_process_and_nothing_is_started() -> None:
    with kept():
        start(1, partial(end, 1), pieces=2)
        assert not there()
        assert stage(workers=1) == {os.getpid()}


@pytest.mark.skipif(sys.platform != "linux", reason="workers are spawned there")
def test_what_workers_are_forked_from_has_no_thread_and_no_pandas() -> None:
    code = (
        "import pathlib, sys, corpus.pipeline.worker_imports\n"
        "print(*{(each / 'comm').read_text().strip() for each in pathlib.Path('/proc/self/task').glob('*')}, sep='|')\n"
        "print(len(list(pathlib.Path('/proc/self/task').glob('*'))), 'pandas' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "OPENBLAS_"))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    names, rest = done.stdout.splitlines()
    threads = 1 + ("jemalloc_bg_thd" in names)  # pyarrow's, which allows forks
    assert rest == f"{threads} False"


@pytest.mark.parametrize("length", [75, 76, 200])
def test_the_path_of_temporary_files_may_be_long(length: int) -> None:
    """The process that workers are forked from listens on a socket there, whose path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    place = folder / ("t" * (length - len(f"{folder}/")))
    place.mkdir()
    code = (
        "from corpus.pipeline.workers import run_pieces\n"
        "if __name__ == '__main__':\n    print(*run_pieces(abs, [-1, -2, -3], workers=2))"
    )
    environment = {**os.environ, "TMPDIR": str(place)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    shutil.rmtree(folder)
    assert (done.stdout, done.returncode) == ("1 2 3\n", 0), done.stderr
