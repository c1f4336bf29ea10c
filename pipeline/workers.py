"""An ordered, bounded pool of worker processes.

In: a function, pieces in order. Out: the results in the same order, each as soon as it and those before it are there.
Invariants: at most `workers + 1` pieces are in progress or wait for their turn, so memory does not grow with the input.
A worker that dies (killed, out of memory) ends the command with WorkerError. Workers end when their parent does,
however it ends. Ctrl-C reaches the parent alone and ends the workers.
Cost: a worker starts in about a second, so a command that runs several stages keeps its workers.
The pool is Pebble's. It gets its processes and pipes from here, so every worker is known and no dead one is replaced.
On Linux workers are forked from a process that has imported what they need and has no threads; elsewhere, and where the
path of TMPDIR is too long for a socket, each one is spawned and imports it. None is forked from the parent: a lock that
one of its threads holds would stay held.
SIGINT and SIGTERM are deferred while the pool is called: an exception inside it could leave a lock held forever.
Within `running_on(engine)` the pieces go to that engine instead, but those that the caller wants `here`.
Workers cannot import pandas, which pyarrow would load where it is installed: half a second and 40 MB in each, unused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.abc import MetaPathFinder
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

from pebble import ProcessExpired, ProcessPool

from corpus.pipeline.errors import WorkerError

Piece = TypeVar("Piece")
Result = TypeVar("Result")
_CHECK_S = 1.0
"""How often the workers are checked while a result is waited for."""
_PIPE_BYTES = 1 << 20
IMPORTED = "corpus.pipeline.worker_imports"
"""The module that a worker imports before its first piece."""
_SOCKET = "/pymp-01234567/listener-01234567"
"""Where the fork server listens, in the folder for temporary files."""
_SOCKET_BYTES = 107
"""Most bytes of a socket's path on Linux."""


def _context() -> BaseContext:
    """How workers are started."""
    # system libraries of macOS end a process that is forked
    if sys.platform != "linux" or not _may_listen():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([IMPORTED])
    return context


def _may_listen() -> bool:
    """Whether there is a folder for temporary files (TMPDIR), with a path short enough for a socket in it."""
    try:
        return len(os.fsencode(tempfile.gettempdir() + _SOCKET)) <= _SOCKET_BYTES
    except FileNotFoundError:
        return False


_CONTEXT: Any = _context()


class Engine(Protocol):
    """Runs pieces elsewhere than in the worker processes of this module."""

    @property
    def slots(self) -> int:
        """How many pieces run at one time."""

    def run(self, function: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Generator[Result, None, None]:
        """As `run_pieces` does, whatever the number of workers."""


_engines: list[Engine] = []


@contextlib.contextmanager
def running_on(engine: Engine) -> Iterator[None]:
    """Let `run_pieces` give its pieces to an engine until the block ends."""
    _engines.append(engine)
    try:
        yield
    finally:
        _engines.pop()


def worker_count(workers: int, pieces: int | None) -> int:
    """Worker processes to use: as many as asked for; when 0, one for each core but no more than there are pieces.

    Without a number of pieces it is that of the engine, where there is one.
    """
    if pieces is None and _engines:
        return _engines[-1].slots
    return workers or max(1, min(_cores(), _cores() if pieces is None else pieces))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_pieces(
    function: Callable[[Piece], Result], pieces: Iterable[Piece], *, workers: int, here: bool = False
) -> Generator[Result, None, None]:
    """Apply `function` to every piece and yield the results in order.

    With one worker the work is done in this process. `here` is for pieces that need this machine though an engine runs
    the others: they share a temporary file, or their results are large. Closing the iterator, or an exception in its
    consumer, stops the workers.

    Raises:
        WorkerError: a worker died without raising an exception.

    """
    if _engines and not here:
        yield from _engines[-1].run(_work(function, elsewhere=True), pieces)
        return
    if workers <= 1:
        yield from map(function, pieces)
        return
    pool: _Pool | None = None
    pending: deque[Future[Result]] = deque()
    try:
        with _signals_deferred():
            pool = _take_pool(min(workers, len(pieces)) if isinstance(pieces, Sized) else workers)
        work = _work(function)
        for piece in pieces:
            with _signals_deferred():
                pending.append(pool.submit(work, piece))
            if len(pending) > workers:
                yield _next(pending, pool)
        while pending:
            yield _next(pending, pool)
    except (BrokenProcessPool, ProcessExpired) as error:
        raise WorkerError(
            "a worker process died before its piece was done (killed, or out of memory)",
            hint="Run the same command again: finished pieces are kept. If memory was short, use fewer --workers.",
        ) from error
    finally:
        with _signals_deferred():
            if pool and _idle and not pending and pool.is_whole():
                _idle[-1].append(pool)
            elif pool:
                pool.stop()


def is_elsewhere() -> bool:
    """Whether an engine runs the pieces, which may then be made on other machines."""
    return bool(_engines)


@contextlib.contextmanager
def preparing(prepare: Callable[[], object], elsewhere: Callable[[], object] | None = None) -> Iterator[None]:
    """Let each worker process call `prepare` before each piece while the block runs; a second call must be cheap.

    An engine's processes call `elsewhere` instead: a copy of what it is when a run over pieces begins.
    """
    preparation = (prepare, elsewhere or prepare)
    _preparations.append(preparation)
    try:
        yield
    finally:
        _preparations.remove(preparation)


_preparations: list[tuple[Callable[[], object], Callable[[], object]]] = []
"""What local workers call, and what an engine's processes call."""


def _work(function: Callable[[Piece], Result], *, elsewhere: bool = False) -> Callable[[Piece], Result]:
    if not _preparations:
        return function
    return partial(_prepared, tuple(preparation[elsewhere] for preparation in _preparations), function)


def _prepared(
    preparations: tuple[Callable[[], object], ...], function: Callable[[Piece], Result], piece: Piece
) -> Result:
    for prepare in preparations:
        prepare()
    return function(piece)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep the workers of one stage for the next, and end them when the outermost `kept()` ends."""
    _idle.append(_idle[-1] if _idle else [])
    try:
        yield
    finally:
        with _signals_deferred():
            pools = _idle.pop()
            while pools and not _idle:
                pools.pop().stop()


def start(workers: int, function: Callable[[], object], *, pieces: int) -> None:
    """Start workers, at most one for each piece, which within `kept()` the next `run_pieces` takes over.

    Each calls `function` meanwhile; its result or exception is discarded, so the pieces must not depend on it.
    """
    if workers <= 1 or not pieces or _engines:
        return
    with _signals_deferred():
        pool = _take_pool(min(workers, pieces))
        _idle[-1].append(pool)
        with contextlib.suppress(BrokenProcessPool):  # `run_pieces` then starts others
            for _ in range(pool.workers):
                pool.submit(_discard, function)


def _discard(function: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        function()


def _apply(function: Callable[[Piece], Result], piece: list[Piece]) -> Result:
    return function(piece.pop())  # Pebble would keep it in memory until the next one is received


class _Worker(_CONTEXT.Process):  # type: ignore[misc]  # which class it is depends on the platform
    """A worker that no Ctrl-C reaches, not even while it starts."""

    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which the new process inherits
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Pool:
    """A pool whose workers start when the first piece is submitted."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._started: list[_Worker] = []
        self._done: SimpleQueue[Future[Any]] = SimpleQueue()
        self._seen: set[Future[Any]] = set()
        context: Any = SimpleNamespace(
            Process=self._new_worker, Pipe=_wide_pipe, RLock=_CONTEXT.RLock, get_start_method=_CONTEXT.get_start_method
        )
        self._pebble = ProcessPool(workers, initializer=_start_worker, context=context)

    def _new_worker(self, **arguments: Any) -> _Worker:
        if len(self._started) == self.workers:
            raise BrokenProcessPool("a worker died")  # it may have held a lock: a new one could wait for that
        self._started.append(_Worker(**arguments))
        return self._started[-1]

    def submit(self, function: Callable[[Piece], Result], piece: Piece) -> Future[Result]:
        try:
            future: Future[Result] = self._pebble.schedule(_apply, args=(function, [piece]))
        except RuntimeError as error:
            raise BrokenProcessPool from error
        future.add_done_callback(self._done.put)
        return future

    def wait_for(self, future: Future[Any]) -> None:
        """Wait for a result, or for the death of a worker.

        A thread of Pebble puts each result into a queue: none of its locks is held when Ctrl-C ends the wait.
        """
        while future not in self._seen:
            try:
                self._seen.add(self._done.get(timeout=_CHECK_S))
            except Empty:
                if not self.is_whole():
                    raise BrokenProcessPool from None
        self._seen.remove(future)

    def is_whole(self) -> bool:
        """Whether workers were started and all of them are alive."""
        return bool(self._started) and self._pebble.active and all(worker.exitcode is None for worker in self._started)

    def stop(self) -> None:
        """Kill the workers: Pebble would send SIGTERM and wait three seconds for each that is busy."""
        self._pebble.stop()
        for worker in self._started:
            if worker.pid:
                worker.kill()
                worker.join()
        self._pebble.join()


def _wide_pipe(*, duplex: bool) -> tuple[Connection, Connection]:
    """A pipe of one mebibyte where the system allows that: large pieces go through it in half the time."""
    ends: tuple[Connection, Connection] = _CONTEXT.Pipe(duplex)
    with contextlib.suppress(OSError, AttributeError):  # the limit for users is lower, or the system is not Linux
        fcntl.fcntl(ends[1].fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ends


_idle: list[list[_Pool]] = []
"""Idle workers: the same list for each `kept()` that is open."""


def _take_pool(workers: int) -> _Pool:
    """At least so many workers: the kept ones if they are enough and alive."""
    while _idle and _idle[-1]:
        pool = _idle[-1].pop()
        if pool.workers >= workers and pool.is_whole():
            return pool
        pool.stop()
    return _Pool(workers)


@contextlib.contextmanager
def _signals_deferred() -> Iterator[None]:
    """Defer SIGINT and SIGTERM until the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread handles signals
        return
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, lambda number, _: caught.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        signal.raise_signal(caught[0])


def _next(pending: deque[Future[Result]], pool: _Pool) -> Result:
    """The first result, removed from the queue only once it is there."""
    pool.wait_for(pending[0])
    result = pending[0].result()
    pending.popleft()
    return result


class _WithoutPandas(MetaPathFinder):
    """Refuses to import pandas, so that nothing that needs it, such as `datasets`, is imported either."""

    def find_spec(self, fullname: str, _path: object, _target: object = None) -> None:
        """What the import system asks."""
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname, name=fullname)


def refuse_pandas() -> None:
    """Let nothing in this process import pandas from now on; for processes that are ours alone."""
    sys.meta_path.insert(0, _WithoutPandas())


def _start_worker() -> None:
    refuse_pandas()
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
