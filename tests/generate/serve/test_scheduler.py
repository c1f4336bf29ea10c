"""The scheduler without a network: order, ends, and errors that stay with their own job."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from corpus.generate.config import SampleConfig
from corpus.generate.engine.model import Model
from corpus.generate.serve.scheduler import Failure, FullError, Job, Part, Scheduler, StoppingError
from tests.support.sampling import random_model, script_model

LONG = SampleConfig(max_new_tokens=150, temperature=0)
ENDLESS = SampleConfig(max_new_tokens=10**6, temperature=0)


def now(work: Callable[[], None]) -> None:
    work()


@contextmanager
def running(model: Model, *, rows: int = 2, waiting: int = 9) -> Iterator[tuple[Scheduler, list[str]]]:
    reports: list[str] = []
    scheduler = Scheduler(model, rows=rows, queue=waiting, call=now, report=reports.append)
    scheduler.start()
    try:
        yield scheduler, reports
    finally:
        scheduler.stop()
        scheduler.join(20)
        assert not scheduler.is_alive


class Asked:
    """A job and what it received."""

    def __init__(self, *prompt: int, config: SampleConfig = LONG, seconds: float = 60, rows: int = 1) -> None:
        self.got: queue.Queue[Part | Failure] = queue.Queue()
        self.job = Job(
            prompts={0: prompt}, keys=[(0, row) for row in range(rows)], config=config,
            deadline=time.monotonic() + seconds, receive=self.got.put,
        )  # fmt: skip

    def next(self) -> Any:
        return self.got.get(timeout=20)

    def all(self) -> list[Any]:
        """Everything to the end of its one choice, or its failure."""
        got = [self.next()]
        while isinstance(got[-1], Part) and not got[-1].end:
            got.append(self.next())
        return got


def test_jobs_begin_in_order_and_end_for_a_reason() -> None:
    a, b, c = random_model().encode("abc")
    model = script_model({a: a, b: c, c: 0})
    with running(model, rows=1) as (scheduler, _):
        first, second, third = (
            Asked(a, config=SampleConfig(max_new_tokens=30, temperature=0)),
            Asked(b),
            Asked(a, seconds=0),
        )
        for each in (first, second, third):
            scheduler.submit(each.job)
        assert third.all() == [Failure("the request's time was up before its turn came", "time")]
        written = first.all()
        assert ("".join(part.text for part in written), written[-1].end) == ("a" * 30, "length")
        assert written[-1].tokens == 30
        assert [(part.text, part.end) for part in second.all()] == [("c", None), ("", "separator")]
        assert scheduler.running == scheduler.waiting == 0


def test_an_error_ends_its_own_job_alone() -> None:
    a = random_model().encode("a")[0]
    with running(script_model({a: a})) as (scheduler, reports):
        good, bad = Asked(a), Asked(10**6)
        scheduler.submit(good.job)
        good.next()
        scheduler.submit(bad.job)
        assert bad.all() == [Failure("internal error", "error")]
        assert len(good.all()) == 149
        assert [line.split(":")[:2] for line in reports] == [["internal error", " IndexError"]]


def test_a_cancelled_job_hears_nothing_more_and_gives_up_its_rows() -> None:
    a = random_model().encode("a")[0]
    with running(script_model({a: a})) as (scheduler, _):
        left, waits = Asked(a, rows=2, config=ENDLESS), Asked(a)
        stays = Asked(a, config=SampleConfig(max_new_tokens=3, temperature=0))
        scheduler.submit(left.job)
        left.next()
        scheduler.submit(waits.job)
        scheduler.submit(stays.job)
        scheduler.cancel(waits.job)
        scheduler.cancel(left.job)
        assert stays.all()[-1].end == "length"
        assert waits.got.empty()
        assert scheduler.running == scheduler.waiting == 0


def test_stopping_ends_what_is_written_and_gives_back_held_text() -> None:
    a = random_model().encode("a")[0]
    scripted = script_model({a: a})
    held = SampleConfig(max_new_tokens=10**6, temperature=0, stop=("aaab",))
    with running(scripted, rows=1) as (scheduler, _):
        open_, waits = Asked(a, config=held), Asked(a)
        scheduler.submit(open_.job)
        first = open_.next()
        scheduler.submit(waits.job)
        scheduler.stop()
        written = [first, *open_.all()]
        assert written[-1].end == "shutdown"
        assert "".join(part.text for part in written) == "a" * written[-1].tokens
        assert waits.all() == [Failure("the server is stopping", "shutdown")]
        with pytest.raises(StoppingError):
            scheduler.submit(Asked(a).job)


def test_a_queue_of_none_takes_what_fits_now() -> None:
    a = random_model().encode("a")[0]
    with running(script_model({a: a}), rows=3, waiting=0) as (scheduler, _):
        jobs = [Asked(a, config=ENDLESS), Asked(a, rows=2, config=ENDLESS)]
        for each in jobs:
            scheduler.submit(each.job)
        with pytest.raises(FullError) as caught:
            scheduler.submit(Asked(a).job)
        assert caught.value.wait_s >= 1
