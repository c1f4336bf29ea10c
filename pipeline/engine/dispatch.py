"""Handing out the pieces of a stage to many slots: the driver's part of an engine, free of any engine's package.

In: pieces in order, as an iterator, and a `Backend`, which runs them somewhere. Out: the results in the same order.
Invariants: at most two pieces a slot are handed out and have no result, and at most `REACH` a slot are between the
first that was not yielded and the last that was handed out; so memory depends on the slots, not on the pieces. A piece
without a result when its deadline passes is handed out again, the first result counts, and the others are cancelled and
ignored. A piece that fails ends the run in its turn: nothing more is handed out, the pieces after it are cancelled, and
those before it still give their results; so the failure is the one that one worker alone would meet first.
Cost: a constant number of steps for each piece, however many slots there are; a piece is held until it has a result.
The clock is the caller's, so a simulation with a virtual one runs this very code.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from corpus.pipeline.errors import WorkerError

Piece = TypeVar("Piece")
Piece_contra = TypeVar("Piece_contra", contravariant=True)
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)
Handle = TypeVar("Handle", bound=Hashable)

WINDOW = 2
"""Pieces for each slot that are handed out and have no result: one runs, one waits beside it."""
REACH = 64
"""Pieces for each slot between the first that was not yielded and the last that was handed out. While one piece takes
long, each slot finishes so many others before it must wait: with 16 a thousand slots took twice the time (scale.md)."""
_SAMPLE = 255
"""Times of pieces whose median counts: the last ones."""


class Backend(Protocol[Piece_contra, Handle, Result_co]):
    """What runs pieces. A handle names one time that a piece was handed out."""

    @property
    def slots(self) -> int:
        """How many pieces run at one time; it may change while the run goes on, and is asked often."""

    def submit(self, piece: Piece_contra) -> Handle:
        """Hand out a piece, without waiting for it."""

    def wait(self, handles: Collection[Handle], timeout_s: float) -> Iterable[Handle]:
        """The handles that have finished, each given once; waits for one, and no longer than this.

        `handles` are all that are waited for. It is the dispatcher's own collection, neither copied nor to be kept.
        """

    def result(self, handle: Handle) -> Result_co:
        """The result of a handle that has finished; raises what the piece raised."""

    def cancel(self, handles: Collection[Handle]) -> None:
        """Stop pieces, if possible; `wait` need not give them any more, but may."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deadline:
    """When a piece without a result is handed out again: for its first time, and twice as late each further time."""

    least_s: float = 60.0
    medians: float = 5.0
    """In medians of the times, from handing out to the result, of the pieces that finished last."""
    first_s: float = 600.0
    """While no piece has finished."""
    tries: int = 6
    """How often a piece is handed out before the run fails."""


DEADLINE = Deadline()


@dataclass(slots=True)
class _Flying(Generic[Piece, Handle]):
    """A piece that is handed out and has no result."""

    piece: Piece
    handles: list[Handle]
    times: int = 0
    """How often it was handed out again."""
    since: float = 0.0
    """When it was handed out last."""


@dataclass(slots=True)
class _Median:
    """The median of the last values."""

    _order: deque[float] = field(default_factory=deque)
    _sorted: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        if len(self._order) == _SAMPLE:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]
        self._order.append(value)
        insort(self._sorted, value)

    @property
    def value(self) -> float | None:
        return self._sorted[len(self._sorted) // 2] if self._sorted else None


class Dispatcher(Generic[Piece, Handle, Result]):
    """One run over pieces; `run` is called once."""

    def __init__(
        self, backend: Backend[Piece, Handle, Result], *, clock: Callable[[], float] = time.monotonic,
        deadline: Deadline = DEADLINE, slots: int | None = None,
    ) -> None:  # fmt: skip
        """`slots` bounds those of the backend."""
        self.backend, self.deadline = backend, deadline
        self.again = 0
        """How often a piece was handed out again."""
        self._clock, self._slots = clock, slots
        self._flying = [OrderedDict[int, _Flying[Piece, Handle]]() for _ in range(deadline.tries)]
        """Pieces by number, for each number of times that they were handed out again; longest waiting first."""
        self._handles: dict[Handle, tuple[int, _Flying[Piece, Handle], float]] = {}
        """Number and piece of each handle that is waited for, and since when."""
        self._done: dict[int, Result] = {}
        """Results that wait for their turn."""
        self._in_flight = 0
        self._taken = 0
        """Pieces taken from the iterator."""
        self._turn = 0
        """The piece whose result is yielded next."""
        self._end: int | None = None
        """No piece from this number on is wanted."""
        self._failure: BaseException | None = None
        """What the piece of this number raised."""
        self._median = _Median()

    def run(self, pieces: Iterable[Piece]) -> Generator[Result, None, None]:
        """The results in order. Closing the iterator, or an exception in its consumer, cancels what is handed out.

        Raises:
            WorkerError: a piece has no result though it was handed out often.

        """
        source = iter(pieces)
        try:
            while True:
                self._hand_out(source)
                if self._turn == self._end:
                    if self._failure is not None:
                        raise self._failure
                    return
                if self._turn not in self._done:
                    self._collect()
                while self._turn in self._done:
                    result = self._done.pop(self._turn)
                    self._turn += 1
                    yield result
        finally:
            if self._handles:
                self.backend.cancel(self._handles.keys())

    def _hand_out(self, source: Iterator[Piece]) -> None:
        """Hand out pieces until the window is full."""
        if self._end is not None:
            return
        slots = max(1, self.backend.slots)
        slots = min(slots, self._slots) if self._slots else slots
        furthest = self._turn + REACH * slots
        while self._in_flight < WINDOW * slots and self._taken < furthest:
            try:
                piece = next(source)
            except StopIteration:
                self._end = self._taken
                return
            self._submit(self._taken, _Flying[Piece, Handle](piece, []))
            self._taken += 1
            self._in_flight += 1

    def _submit(self, number: int, flying: _Flying[Piece, Handle]) -> None:
        handle = self.backend.submit(flying.piece)
        flying.handles.append(handle)
        flying.since = self._clock()
        self._handles[handle] = (number, flying, flying.since)
        self._flying[flying.times][number] = flying

    def _collect(self) -> None:
        """Wait until something has finished or is due, and take what has finished."""
        finished = self.backend.wait(self._handles.keys(), max(0.0, self._hand_out_again() - self._clock()))
        for handle in finished:
            if handle in self._handles:
                self._take(handle)

    def _take(self, handle: Handle) -> None:
        """Take the result of a piece."""
        number, flying, since = self._handles[handle]
        try:
            result = self.backend.result(handle)
        except Exception as error:  # noqa: BLE001  # of whatever kind: it is raised when its turn has come
            if isinstance(error, WorkerError) and len(flying.handles) > 1:  # another worker has the piece, too
                flying.handles.remove(handle)
                del self._handles[handle]
                return
            self._forget(number, flying)
            self._fail(number, error)
        else:
            self._forget(number, flying)
            self._done[number] = result
            self._median.add(self._clock() - since)
        others = [other for other in flying.handles if other != handle]
        if others:
            self.backend.cancel(others)

    def _forget(self, number: int, flying: _Flying[Piece, Handle]) -> None:
        """No longer wait for a piece."""
        del self._flying[flying.times][number]
        for handle in flying.handles:
            del self._handles[handle]
        self._in_flight -= 1

    def _fail(self, number: int, error: BaseException) -> None:
        """End the run with this piece, before which all still have their turn."""
        self._failure, self._end = error, number
        later = [found for each in self._flying for found in each.items() if found[0] > number]
        for other, flying in later:
            self._forget(other, flying)
        if later:
            self.backend.cancel([handle for _, flying in later for handle in flying.handles])
        self._done = {other: result for other, result in self._done.items() if other < number}

    def _hand_out_again(self) -> float:
        """Hand out the pieces whose deadline has passed once more; returns when the next one passes."""
        now, median, due = self._clock(), self._median.value, float("inf")
        limit = self.deadline.first_s if median is None else median * self.deadline.medians
        limit = max(self.deadline.least_s, limit)
        for times, waiting in enumerate(self._flying):
            while waiting:
                number, flying = next(iter(waiting.items()))
                passes = flying.since + limit * 2**times
                if passes > now:
                    due = min(due, passes)
                    break
                if times + 1 == self.deadline.tries:
                    raise WorkerError(
                        f"piece {number} has no result, though it was handed out {self.deadline.tries} times",
                        hint="Run the same command again: finished pieces are kept. A slot may have lost its node.",
                    )
                del waiting[number]
                flying.times += 1
                self._submit(number, flying)
                self.again += 1
        return due
