"""Continuous batching: one running batch that requests join at the next token and leave when they are finished.

In: jobs, from any thread. Out: what each step of the model gives them, handed over by `call`, one call a step.
Invariants: jobs begin in the order of their arrival; an answer does not depend on the other answers; a job that is
cancelled, whose time is up or whose prompt fails gives up its rows at the next token, and no other job notices; every
job that is not cancelled ends with a `Part` that has an `end` for each of its choices, or with one `Failure`.
Cost: while others write, at most `PROMPT_TOKENS` and one more prompt are read between two tokens.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from corpus.generate.config import Reason, SampleConfig
from corpus.generate.engine.batch import Batch, Row, Scores
from corpus.generate.engine.model import Model
from corpus.pipeline.errors import CorpusError

PROMPT_TOKENS = 512
"""Tokens of prompts that are read before the running answers get their next token."""
_LONGEST_WAIT_S = 60
End = Literal[Reason, "time", "shutdown"]
"""Why a choice ended; `time`: the request's time was up; `shutdown`: the server was stopped."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one token added to one choice of a job."""

    choice: int
    text: str
    token: int | None
    """None where the choice ended without a further token."""
    tokens: int
    """Tokens of the choice so far, a separator included."""
    scores: Scores | None = None
    end: End | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that cannot be answered."""

    message: str
    kind: Literal["time", "shutdown", "error"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """Texts to write, each a choice."""

    prompts: Mapping[int, Sequence[int]]
    keys: Sequence[tuple[int, int]]
    """For each choice its prompt and the number of the sample; the pair seeds it."""
    config: SampleConfig
    deadline: float
    """When its time is up, by `time.monotonic`."""
    receive: Callable[[Part | Failure], None]
    likeliest: int | None = None
    is_cancelled: threading.Event = field(default_factory=threading.Event)


class FullError(Exception):
    """The queue is full; `wait_s` is about how long until there is room."""

    def __init__(self, wait_s: int) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


class StoppingError(Exception):
    """The scheduler takes no more jobs."""


_Mail = list[tuple[Job, Part | Failure]]


class Scheduler:
    """Writes jobs in a thread of its own."""

    def __init__(
        self, model: Model, *, rows: int, queue: int, call: Callable[[Callable[[], None]], object],
        report: Callable[[str], None],
    ) -> None:  # fmt: skip
        """At most `rows` choices are written at once, and `queue` jobs wait; `report` takes unexpected errors."""
        self._model = model
        self._rows = rows
        self._queue = queue
        self._call = call
        self._report = report
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._is_stopping = False
        self._mean_s = 1.0
        self._batch: Batch | None = None
        self._owners: dict[Row, tuple[Job, int, float]] = {}
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    @property
    def running(self) -> int:
        """Choices that are being written."""
        return len(self._owners)

    @property
    def waiting(self) -> int:
        """Jobs that wait for their turn."""
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        """Whether it takes jobs."""
        return self._thread.is_alive() and not self._is_stopping

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Take a job of at most `rows` choices.

        Raises:
            FullError: too many wait.
            StoppingError: `stop` was called.

        """
        with self._changed:
            if not self.is_alive:
                raise StoppingError
            if len(self._waiting) >= self._queue and self._asked + len(job.keys) > self._rows:
                raise FullError(self._wait_s())
            self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Write no more of a job; without effect on a finished one."""
        with self._changed:
            job.is_cancelled.set()
            self._changed.notify()

    def stop(self) -> None:
        """End all choices at the next token, refuse what waits, and take no more."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread after `stop`."""
        self._thread.join(timeout_s)

    @property
    def _asked(self) -> int:
        """Choices that are being written or wait."""
        return len(self._owners) + sum(len(job.keys) for job in self._waiting)

    def _wait_s(self) -> int:
        """About how long a new job would wait, in whole seconds."""
        return max(1, min(_LONGEST_WAIT_S, math.ceil(self._mean_s * self._asked / self._rows)))

    # --- in the thread ---

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._owners or self._is_stopping):
                    self._changed.wait()
            mail: _Mail = []
            is_last = self._is_stopping
            try:
                self._turn(mail)
            except Exception as error:  # noqa: BLE001  # a waiting job must get an answer
                self._give_up(error, mail)
            self._deliver(mail)
            if is_last:
                return

    def _turn(self, mail: _Mail) -> None:
        """Let jobs leave and join, and write one token of each."""
        self._drop(mail)
        if not self._is_stopping:
            self._admit(mail)
            if self._batch is not None:
                self._step(self._batch, mail)

    def _deliver(self, mail: _Mail) -> None:
        if mail:
            self._call(functools.partial(_hand_over, mail))

    def _drop(self, mail: _Mail) -> None:
        """Take out jobs that are cancelled, whose time is up, or all when stopping."""
        now = time.monotonic()
        with self._changed:
            gone = [job for job in self._waiting if self._is_over(job, now)]
            for job in gone:
                self._waiting.remove(job)
                self._fail(job, mail, now)
        over = [row for row, (job, _, _) in self._owners.items() if self._is_over(job, now)]
        if over and self._batch is not None:
            self._leave(self._batch, over, mail)

    def _is_over(self, job: Job, now: float) -> bool:
        return self._is_stopping or job.is_cancelled.is_set() or now >= job.deadline

    def _fail(self, job: Job, mail: _Mail, now: float) -> None:
        """End a job that has not begun."""
        if job.is_cancelled.is_set():
            return
        if now >= job.deadline:
            mail.append((job, Failure("the request's time was up before its turn came", "time")))
        else:
            mail.append((job, Failure("the server is stopping", "shutdown")))

    def _leave(self, batch: Batch, rows: list[Row], mail: _Mail) -> None:
        """End rows that are not finished; what was held back of their text is final."""
        end: End = "shutdown" if self._is_stopping else "time"
        for row in rows:
            job, choice, _ = self._owners.pop(row)
            if not job.is_cancelled.is_set():
                mail.append((job, Part(choice, row.flush(), None, row.tokens, end=end)))
        try:
            batch.leave(rows)
        except Exception as error:  # noqa: BLE001  # the jobs that stay must hear of it
            self._give_up(error, mail)
        self._batch = batch if self._owners else None

    def _admit(self, mail: _Mail) -> None:
        """Let waiting jobs join in their order, as far as there is room."""
        read = 0
        while read < PROMPT_TOKENS:
            with self._changed:
                if not self._waiting or len(self._owners) + len(self._waiting[0].keys) > self._rows:
                    return
                job = self._waiting.popleft()
            read += sum(map(len, job.prompts.values()))
            self._begin(job, mail)

    def _begin(self, job: Job, mail: _Mail) -> None:
        try:
            batch = Batch(self._model, job.prompts, job.keys, job.config, likeliest=job.likeliest)
        except Exception as error:  # noqa: BLE001  # a prompt that fails ends its own job only
            mail.append((job, self._failure(error)))
            return
        rows = list(batch.rows)
        try:
            if self._batch is None:
                self._batch = batch
            else:
                self._batch.join(batch)
        except Exception as error:  # noqa: BLE001  # it may have happened half-way, so the running batch ends
            mail.append((job, self._failure(error)))
            self._give_up(error, mail)
            return
        now = time.monotonic()
        self._owners |= {row: (job, choice, now) for choice, row in enumerate(rows)}

    def _step(self, batch: Batch, mail: _Mail) -> None:
        try:
            written = batch.step()
        except Exception as error:  # noqa: BLE001  # every job must hear of it
            self._give_up(error, mail)
            return
        for each in written:
            job, choice, began = self._owners[each.row]
            end = each.finish.reason if each.finish else None
            mail.append((job, Part(choice, each.text, each.token, each.row.tokens, each.scores, end)))
            if end:
                del self._owners[each.row]
                self._mean_s += (time.monotonic() - began - self._mean_s) / 8
        self._batch = batch if batch.rows else None

    def _give_up(self, error: Exception, mail: _Mail) -> None:
        """End all running jobs after an error of the batch; the next job begins a new one."""
        failure = self._failure(error)
        mail.extend((job, failure) for job in dict.fromkeys(job for job, _, _ in self._owners.values()))
        self._owners.clear()
        self._batch = None

    def _failure(self, error: Exception) -> Failure:
        if isinstance(error, CorpusError):
            return Failure(error.message, "error")
        self._report(f"internal error: {type(error).__name__}: {error}")
        return Failure("internal error", "error")


def _hand_over(mail: _Mail) -> None:
    for job, item in mail:
        job.receive(item)
