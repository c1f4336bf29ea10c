"""A cluster that does not exist: workers, nodes and their faults on a virtual clock, behind the protocol of an engine.

In: pieces from the dispatcher of `corpus.pipeline.engine`, how long a piece takes, how often what fails. Out: results
as workers would give them, and what happened. Nothing waits: `wait` moves the clock to the next event.
Faults, drawn from one seeded stream, so equal runs are equal:
- a straggler takes many times as long; all pieces of a slow node do;
- a worker dies within a piece: the engine notices at once and starts the piece again, as Ray does;
- a node dies: the engine notices after `NOTICE_S` and starts its pieces again;
- a node's cable is cut: its pieces never end for the driver, but the node finishes them and writes them late.
A lost node comes back after `REPAIR_S`.
"""

from __future__ import annotations

import heapq
import pickle
import random
import zlib
from array import array
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

NOTICE_S = 32.0
"""How long an engine takes to find that a node is dead."""
REPAIR_S = 300.0
STARTING_S = 0.4
"""Until a dead worker's piece begins again."""
_SPREAD = 0.2
"""Standard deviation of the logarithm of a piece's seconds."""


class VirtualClock:
    """Seconds that pass when the cluster says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """How often what fails."""

    seed: int = 0
    stragglers: float = 0.001
    """Share of the pieces that take `straggling` times as long."""
    straggling: float = 20.0
    slow_nodes: float = 0.01
    """Share of the nodes that take `slowness` times as long."""
    slowness: float = 3.0
    deaths: float = 0.0005
    """Share of the pieces whose worker dies within them."""
    node_hours: float = 200.0
    """Mean hours until a node dies or its cable is cut, one as often as the other."""


class Store:
    """What workers have written: of each piece how often, and that all writers wrote the same bytes."""

    def __init__(self) -> None:
        self.pieces = self.writes = self.late = self.bytes = 0
        self._marks = array("L")

    def write(self, number: int, data: bytes) -> None:
        """Write the receipt of a piece.

        Raises:
            AssertionError: another writer of the piece wrote other bytes.

        """
        self.writes += 1
        self.bytes += len(data)
        mark = zlib.crc32(data) + 1
        if number >= len(self._marks):
            self._marks.extend([0] * (number + 1 - len(self._marks)))
        self.pieces += not self._marks[number]
        if self._marks[number] not in {0, mark}:
            raise AssertionError(f"two writers of piece {number} wrote different bytes")
        self._marks[number] = mark


@dataclass(slots=True, eq=False)
class Attempt:
    """A piece that was given out once; it may run several times."""

    number: int
    piece: Any
    node: int = -1
    run: int = 0
    """Counts the runs, so that the end of a run that was lost is known."""
    is_over: bool = False
    result: bytes = b""


@dataclass(slots=True)
class _Node:
    speed: float
    life: int = 0
    """Counts how often it was lost: what began in an earlier life does not end."""
    running: dict[int, Attempt] = field(default_factory=dict)


class Cluster:
    """A backend of the dispatcher; `work` makes the result of a piece, and its receipt as bytes."""

    def __init__(
        self, work: Callable[[Any], tuple[Any, bytes]], *, workers: int, per_node: int = 16, seconds: float = 1.6,
        faults: Faults | None = None, driver_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.clock, self.store, self.counts = VirtualClock(), Store(), Counter[str]()
        self.slots = workers
        self.seconds, self.driver_s = seconds, driver_s
        """What a piece takes in the mean, and what giving one out takes the driver."""
        self.outstanding = 0
        """Attempts that are neither cancelled nor known to have ended."""
        self.busy_s = 0.0
        """Worker seconds of the runs that were begun, wasted ones included."""
        self._work, self._faults = work, faults or Faults()
        self._random = random.Random(self._faults.seed)
        sizes = [min(per_node, workers - first) for first in range(0, workers, per_node)]
        self._nodes = [_Node(self._speed()) for _ in sizes]
        self._sizes = sizes
        self._free = deque(node for node, size in enumerate(sizes) for _ in range(size))
        self._random.shuffle(self._free)
        self._queue = deque[Attempt]()
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._ready = deque[Attempt]()
        self._sequence = 0
        self._rate = len(sizes) / (self._faults.node_hours * 3600)
        self._at(self._random.expovariate(self._rate), self._lose_node)

    # --- the backend ------------------------------------------------------------------------------------------------

    def submit(self, piece: Any) -> Attempt:
        """Give a piece to the cluster."""
        self._run_until(self.clock.now + self.driver_s)
        attempt = Attempt(self._next(), piece)
        self.counts["submitted"] += 1
        self.outstanding += 1
        self._queue.append(attempt)
        self._start()
        return attempt

    def wait(self, handles: Collection[Attempt], timeout_s: float) -> list[Attempt]:
        """The attempts that have ended, at least one of them within the time."""
        self.counts["waits"] += 1
        self.counts["handles waited for"] += len(handles)
        end = self.clock.now + timeout_s
        while not self._ready and self._events and self._events[0][0] <= end:
            self._step()
        if not self._ready:
            self.clock.now = end
        found = [attempt for attempt in self._ready if not attempt.is_over]
        self._ready.clear()
        for attempt in found:
            attempt.is_over = True
        self.outstanding -= len(found)
        return found

    def result(self, handle: Attempt) -> Any:
        """What the worker gave, through a pickle as between processes. Raises it where it is an exception."""
        result = pickle.loads(handle.result)  # noqa: S301  # this module made it
        if isinstance(result, Exception):
            raise result
        return result

    def cancel(self, handles: Collection[Attempt]) -> None:
        """Forget some attempts; a run that has begun goes on."""
        for handle in handles:
            self.outstanding -= not handle.is_over
            handle.is_over = True
        self.counts["cancelled"] += len(handles)

    # --- events -----------------------------------------------------------------------------------------------------

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _at(self, moment: float, event: Callable[..., None], *values: Any) -> None:
        heapq.heappush(self._events, (moment, self._next(), event, values))

    def _step(self) -> None:
        moment, _, event, values = heapq.heappop(self._events)
        self.clock.now = max(self.clock.now, moment)
        event(*values)

    def _run_until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self._step()
        self.clock.now = max(self.clock.now, end)

    def _speed(self) -> float:
        return self._faults.slowness if self._random.random() < self._faults.slow_nodes else 1.0

    def _start(self) -> None:
        """Start what waits, on free workers."""
        while self._queue and self._free:
            attempt = self._queue.popleft()
            if attempt.is_over:
                continue
            place = self._free.popleft()
            node, faults, draw = self._nodes[place], self._faults, self._random.random
            seconds = self.seconds * self._random.lognormvariate(0, _SPREAD) * node.speed
            if draw() < faults.stragglers:
                self.counts["stragglers"] += 1
                seconds *= faults.straggling
            attempt.node, attempt.run = place, attempt.run + 1
            node.running[attempt.number] = attempt
            self.counts["runs"] += 1
            dies = draw() < faults.deaths
            seconds *= draw() if dies else 1
            self.busy_s += seconds
            self._at(self.clock.now + seconds, self._die if dies else self._end, attempt, attempt.run, node.life)

    def _end(self, attempt: Attempt, run: int, life: int) -> None:
        """A run is done: its receipt is written, and the driver told unless the cable is cut."""
        node = self._nodes[attempt.node]
        if attempt.run != run or node.life != life:
            return
        result, receipt = self._work(attempt.piece)
        self.store.write(attempt.piece.number, receipt)
        attempt.result = pickle.dumps(result)
        del node.running[attempt.number]
        self._free.append(attempt.node)
        self._ready.append(attempt)
        self._start()

    def _write_late(self, piece: Any) -> None:
        """A node behind a cut cable writes what it had begun."""
        self.store.late += 1
        self.store.write(piece.number, self._work(piece)[1])

    def _die(self, attempt: Attempt, run: int, life: int) -> None:
        """A worker dies; another takes its place, and the piece begins again."""
        node = self._nodes[attempt.node]
        if attempt.run != run or node.life != life:
            return
        self.counts["dead workers"] += 1
        del node.running[attempt.number]
        self._at(self.clock.now + STARTING_S, self._again, attempt)
        self._free.append(attempt.node)
        self._start()

    def _again(self, attempt: Attempt) -> None:
        self._queue.appendleft(attempt)
        self._start()

    def _lose_node(self) -> None:
        """A node dies or is cut off."""
        self._at(self.clock.now + self._random.expovariate(self._rate), self._lose_node)
        place = self._random.randrange(len(self._nodes))
        node = self._nodes[place]
        is_cut = self._random.random() < 1 / 2
        self.counts["nodes cut off" if is_cut else "dead nodes"] += 1
        self._free = deque(free for free in self._free if free != place)
        for attempt in node.running.values():
            if is_cut:
                self._at(self.clock.now + self._random.uniform(0, 2 * self.seconds), self._write_late, attempt.piece)
            else:
                self._at(self.clock.now + NOTICE_S, self._again, attempt)
        node.running.clear()
        node.life += 1
        self._at(self.clock.now + REPAIR_S, self._repair, place, node.life)

    def _repair(self, place: int, life: int) -> None:
        if self._nodes[place].life == life:
            self._nodes[place].speed = self._speed()
            self._free.extend([place] * self._sizes[place])
            self._start()
