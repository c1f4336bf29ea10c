"""Worker processes that do numbered pieces of work and cannot hang their command.

In: a function, pieces in order. Out: results in the same order, each as soon as its turn has come.
Invariants: at most `workers + 1` pieces are under way or waiting for their turn, so memory does not grow with the
input; a worker that dies
(killed, out of memory) ends the command with WorkerError; workers end when their parent does, however it ends.
Workers take a second to start and to load what they need, so a command that runs several stages keeps them.
Processes are spawned, never forked: the parent has threads, and a forked lock is a hang. Ctrl-C is heard between calls
of the executor, not within: what it interrupts there can leave a lock held for ever. Workers do without pandas, which
pyarrow would load where it is installed: half a second and 40 MB of each, for nothing that they do.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from importlib.abc import MetaPathFinder
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from corpus.pipeline.errors import WorkerError

Piece = TypeVar("Piece")
Result = TypeVar("Result")
_LOOK_S = 2.0
"""How often it is looked whether a worker has died that a result is waited for from."""
_HEAR_S = 0.2
"""How soon Ctrl-C is heard while a result is waited for."""
_PIPE_BYTES = 1 << 20


def sensible(workers: int, pieces: int | None) -> int:
    """Worker processes to start: as many as asked for; when 0 one for each core, but no more than there are pieces."""
    return workers or max(1, min(_cores(), _cores() if pieces is None else pieces))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_pieces(
    function: Callable[[Piece], Result], pieces: Iterable[Piece], *, workers: int
) -> Generator[Result, None, None]:
    """Apply `function` to every piece and yield the results in order.

    With one worker the work is done in this process. Closing the iterator, or an exception in its consumer, stops the
    workers.

    Raises:
        WorkerError: a worker died without a word.

    """
    if workers <= 1:
        yield from map(function, pieces)
        return
    crew: _Crew | None = None
    pending: deque[Future[Result]] = deque()
    try:
        with _undisturbed():
            crew = _crew(workers)
        for piece in pieces:
            with _undisturbed():
                pending.append(crew.executor.submit(function, piece))
            if len(pending) > workers:
                yield _next(pending, crew)
        while pending:
            yield _next(pending, crew)
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker process died before its piece was done (killed, or out of memory)",
            hint="Run the same command again: finished pieces are kept. If memory was short, use fewer --workers.",
        ) from error
    finally:
        with _undisturbed():
            if crew and _spare and not pending and crew.is_whole():
                _spare[-1].append(crew)
            elif crew:
                crew.stop()


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within, workers that have done one stage's pieces wait for the next stage's, instead of ending; within another
    `kept()` they wait until that one ends.
    """
    _spare.append(_spare[-1] if _spare else [])
    try:
        yield
    finally:
        with _undisturbed():
            crews = _spare.pop()
            while crews and not _spare:
                crews.pop().stop()


def start(workers: int, function: Callable[[], object], *, pieces: int) -> None:
    """Start workers, no more than there will be pieces, which within `kept()` the next `run_pieces` takes over.

    Each calls `function` meanwhile; what that returns or raises is lost, so the pieces must do without it.
    """
    if workers <= 1:
        return
    with _undisturbed():
        crew = _crew(workers)
        _spare[-1].append(crew)
        with contextlib.suppress(BrokenProcessPool):  # `run_pieces` then starts others
            for _ in range(min(workers, pieces)):
                crew.executor.submit(function)


class _Crew:
    """Workers of one executor, which starts each when there is first a piece for it."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._others = set(multiprocessing.active_children())
        self.executor = ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
        )
        queues: Any = self.executor  # it offers no way to its queues, without which a dead worker is waited for
        self._ends: tuple[Connection, Connection] = queues._result_queue._writer, queues._call_queue._reader
        for end in self._ends:
            _close_in_turn(end)
        _widen(self._ends[1])

    def is_whole(self) -> bool:
        """Whether all workers that were started are there."""
        processes = list((self.executor._processes or {}).values())
        return not self.executor._broken and all(process.exitcode is None for process in processes)

    def stop(self) -> None:
        """Kill the workers, also idle ones: an executor that asks them to leave hangs if one has died with a lock held.

        Killed are all children but those that were there before: one that was being started when Ctrl-C came is not
        known to the executor, and the interpreter would wait for it at its end. With its ends of the pipes open the
        executor would wait for the rest of a result, or for room for a piece that nobody reads.
        """
        for process in set(multiprocessing.active_children()) - self._others:
            process.kill()
        for end in self._ends:
            end.close()
        self.executor.shutdown(wait=True, cancel_futures=True)


def _close_in_turn(end: Connection) -> None:
    """Let threads close one end of a pipe one after another: the executor's own does, too, when it sees a worker die.

    Two at once would close a number that by then may be another file's.
    """
    lock, close = threading.Lock(), end.close

    def closing() -> None:
        with lock:
            close()

    end.close = closing  # type: ignore[method-assign]  # of this end alone, which the executor made


def _widen(end: Connection) -> None:
    """Let a pipe hold a mebibyte where that can be asked for: large pieces go through it in half the time."""
    with contextlib.suppress(OSError, AttributeError):  # the limit for users is lower, or the system is not Linux
        fcntl.fcntl(end.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


_spare: list[list[_Crew]] = []
"""Workers without work: the same list for each `kept()` that is open."""


def _crew(workers: int) -> _Crew:
    """At least so many workers: those that were kept, if they are enough and well."""
    while _spare and _spare[-1]:
        crew = _spare[-1].pop()
        if crew.workers >= workers and crew.is_whole():
            return crew
        crew.stop()
    return _Crew(workers)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM that come within are heard at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for caught in came[:1]:
        signal.raise_signal(caught)


def _next(pending: deque[Future[Result]], crew: _Crew) -> Result:
    """The first result, taken off the queue when it is there.

    A worker that died in the middle of sending one is seen here, the executor waits for ever.
    """
    while not _is_done(pending[0], _LOOK_S):
        if not crew.is_whole() and not _is_done(pending[0], _LOOK_S):
            raise BrokenProcessPool
    with _undisturbed():
        result = pending[0].result()
        pending.popleft()
    return result


def _is_done(future: Future[Result], timeout_s: float) -> bool:
    """Whether a result has come within so many seconds."""
    for _ in range(round(timeout_s / _HEAR_S)):
        with _undisturbed():
            if wait_for([future], timeout=_HEAR_S).done:
                return True
    return False


class _WithoutPandas(MetaPathFinder):
    """Lets nothing import pandas, nor what needs it, such as `datasets`."""

    def find_spec(self, fullname: str, _path: object, _target: object = None) -> None:
        """What the import system asks."""
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname, name=fullname)


def _start_worker() -> None:
    sys.meta_path.insert(0, _WithoutPandas())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
