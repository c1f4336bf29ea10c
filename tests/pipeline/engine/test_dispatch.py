"""The dispatcher on simulated slots with a virtual clock: order, bounds, deadlines, failures."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Collection, Iterator

import pytest

from corpus.pipeline.engine.dispatch import REACH, WINDOW, Deadline, Dispatcher
from corpus.pipeline.errors import WorkerError

Seconds = Callable[[int, int], float]
"""How long a piece takes, and which try it is."""


class Slots:
    """Slots with a virtual clock; the result of piece n is -n. A piece may take for ever, and some raise."""

    def __init__(self, slots: int, seconds: Seconds, *, broken: Collection[int] = (), error: type[Exception]) -> None:
        self.slots, self.seconds, self.broken, self.error = slots, seconds, broken, error
        self.now = 0.0
        self.tries: dict[int, int] = {}
        self.cancelled: set[int] = set()
        self.most_waited = 0
        self._pieces: list[int] = []
        self._queue: list[int] = []
        self._running: list[tuple[float, int]] = []

    def clock(self) -> float:
        return self.now

    def submit(self, piece: int) -> int:
        self._pieces.append(piece)
        self._queue.append(len(self._pieces) - 1)
        self._start()
        return len(self._pieces) - 1

    def _start(self) -> None:
        while self._queue and len(self._running) < self.slots:
            handle = self._queue.pop(0)
            piece = self._pieces[handle]
            self.tries[piece] = self.tries.get(piece, -1) + 1
            heapq.heappush(self._running, (self.now + self.seconds(piece, self.tries[piece]), handle))

    def wait(self, handles: Collection[int], timeout_s: float) -> list[int]:
        self.most_waited = max(self.most_waited, len(handles))
        if not self._running or self._running[0][0] > self.now + timeout_s:
            self.now += timeout_s
            return []
        self.now, handle = heapq.heappop(self._running)
        self._start()
        return [handle]

    def result(self, handle: int) -> int:
        if self._pieces[handle] in self.broken:
            raise self.error(str(self._pieces[handle]))
        return -self._pieces[handle]

    def cancel(self, handles: Collection[int]) -> None:
        self.cancelled.update(handles)
        self._queue = [handle for handle in self._queue if handle not in self.cancelled]


def slots_of(slots: int, seconds: Seconds, broken: Collection[int] = (), error: type[Exception] = ValueError) -> Slots:
    return Slots(slots, seconds, broken=broken, error=error)


def test_results_come_in_order_though_pieces_finish_in_any() -> None:
    draw = random.Random(7)
    backend = slots_of(5, lambda piece, _: draw.uniform(0.1, 20))
    results = Dispatcher(backend, clock=backend.clock).run(iter(range(500)))
    assert list(results) == [-piece for piece in range(500)]


@pytest.mark.parametrize("pieces", [300, 3000])
def test_window_and_reach_bound_what_is_held_whatever_the_number_of_pieces(pieces: int) -> None:
    taken = 0

    def source() -> Iterator[int]:
        nonlocal taken
        for piece in range(pieces):
            taken = piece
            yield piece

    backend = slots_of(4, lambda piece, _: 50.0 if piece % 100 == 0 else 1.0)
    for turn, _ in enumerate(Dispatcher(backend, clock=backend.clock).run(source())):
        assert taken - turn <= REACH * 4
    assert backend.most_waited == WINDOW * 4


def test_slots_can_be_bounded_and_may_grow() -> None:
    bounded = slots_of(8, lambda piece, _: 1.0)
    assert len(list(Dispatcher(bounded, clock=bounded.clock, slots=2).run(range(40)))) == 40
    assert bounded.most_waited == WINDOW * 2
    growing = slots_of(1, lambda piece, _: 1.0)
    results = Dispatcher(growing, clock=growing.clock).run(range(60))
    next(results)
    growing.slots = 6
    assert len(list(results)) == 59
    assert growing.most_waited == WINDOW * 6


def test_a_lost_piece_is_handed_out_again_after_its_deadline() -> None:
    lost = {3, 40}
    backend = slots_of(4, lambda piece, times: float("inf") if piece in lost and times == 0 else 2.0)
    dispatcher = Dispatcher(backend, clock=backend.clock)
    assert list(dispatcher.run(range(100))) == [-piece for piece in range(100)]
    assert dispatcher.again == 2
    assert backend.tries[3] == backend.tries[40] == 1
    assert backend.now < 60 + 60 + 100 * 2 / 2  # two of four slots are lost for ever


def test_deadline_follows_the_median_and_a_first_piece_may_take_longer() -> None:
    slow = slots_of(2, lambda piece, _: 100.0)  # of four handed out two wait, so that the median becomes 200 s
    dispatcher = Dispatcher(slow, clock=slow.clock)
    assert len(list(dispatcher.run(range(20)))) == 20
    assert dispatcher.again == 0
    straggling = slots_of(2, lambda piece, times: 1500.0 if piece == 15 and times == 0 else 100.0)
    dispatcher = Dispatcher(straggling, clock=straggling.clock)
    assert len(list(dispatcher.run(range(20)))) == 20
    assert dispatcher.again == 1


def test_first_result_wins_and_a_late_one_is_ignored() -> None:
    backend = slots_of(3, lambda piece, times: 100.0 if piece == 0 and times == 0 else 5.0)
    results = list(Dispatcher(backend, clock=backend.clock).run(range(60)))
    assert results == [-piece for piece in range(60)]
    assert backend.now > 100  # the late result did arrive
    assert backend.cancelled == {0}


def test_deadlines_double_and_the_run_fails_when_a_piece_is_lost_too_often() -> None:
    backend = slots_of(9, lambda piece, _: float("inf") if piece == 5 else 1.0)
    dispatcher = Dispatcher(backend, clock=backend.clock, deadline=Deadline(least_s=60, tries=3))
    results = dispatcher.run(range(20))
    assert list(itertools.islice(results, 5)) == [0, -1, -2, -3, -4]
    with pytest.raises(WorkerError, match=r"piece 5 .* 3 times"):
        next(results)
    assert 60 + 120 + 240 <= backend.now < 60 + 120 + 240 + 5


def test_failure_comes_in_its_turn_and_the_lowest_counts() -> None:
    seconds = {7: 30.0, 12: 1.0}
    backend = slots_of(8, lambda piece, _: seconds.get(piece, 5.0), broken={7, 12})
    results = Dispatcher(backend, clock=backend.clock).run(range(1000))
    assert list(itertools.islice(results, 7)) == [-piece for piece in range(7)]
    with pytest.raises(ValueError, match=r"^7$"):
        next(results)
    assert max(backend.tries) < 12 + WINDOW * 8  # nothing was handed out after the first failure
    assert max(backend.cancelled) > 12


def test_dead_worker_of_a_piece_that_another_has_ends_nothing() -> None:
    backend = slots_of(2, lambda piece, times: {0: 65.0, 1: 20.0}[min(times, 1)] if piece == 0 else 1.0)
    backend.error = WorkerError

    def result(handle: int) -> int:
        if handle == 0:
            raise WorkerError("its node is lost")
        return handle

    backend.result = result  # type: ignore[method-assign]  # one handle fails, the other of the same piece does not
    assert len(list(Dispatcher(backend, clock=backend.clock).run(range(30)))) == 30


def test_closing_and_a_failing_iterator_cancel_what_is_handed_out() -> None:
    backend = slots_of(2, lambda piece, _: 1.0)
    results = Dispatcher(backend, clock=backend.clock).run(range(100))
    next(results)
    results.close()
    assert len(backend.cancelled) == WINDOW * 2 - 1

    def broken() -> Iterator[int]:
        yield from range(3)
        raise OSError("the archive ends early")

    backend = slots_of(2, lambda piece, _: 1.0)
    with pytest.raises(OSError, match="ends early"):
        list(Dispatcher(backend, clock=backend.clock).run(broken()))
    assert backend.cancelled == {0, 1, 2}


def test_no_pieces_give_no_results() -> None:
    backend = slots_of(2, lambda piece, _: 1.0)
    assert list(Dispatcher(backend, clock=backend.clock).run(())) == []
