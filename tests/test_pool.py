"""Workers that are kept between the stages of a command."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence

import psutil
import pytest

from corpus.pipeline.pool import kept, run_pieces


def whose(_: int) -> int:
    """The process that does a piece; slow enough that one worker does not do all of them."""
    time.sleep(0.05)
    return os.getpid()


def fail_at_two(number: int) -> int:
    if number == 2:
        raise ValueError(number)
    return number


def workers_of(function: Callable[[int], int], pieces: Sequence[int] = range(6)) -> set[int]:
    return set(run_pieces(function, pieces, workers=2))


def test_kept_workers_do_the_next_stage_too_and_end_with_the_command() -> None:
    with kept():
        first = workers_of(whose)
        second = workers_of(whose)
        assert len(first) == 2
        assert os.getpid() not in first
        assert second <= first
    assert not any(map(psutil.pid_exists, first))
    assert not workers_of(whose) & first


def test_workers_end_with_their_stage_where_nothing_keeps_them() -> None:
    first = workers_of(whose)
    assert not any(map(psutil.pid_exists, first))


def test_a_stage_that_takes_no_more_than_it_needs_leaves_its_workers_to_the_next() -> None:
    with kept():
        made = run_pieces(whose, range(3), workers=2)
        first = {next(made) for _ in range(3)}
        del made  # the stage ends without asking whether there is more
        assert first <= {child.pid for child in multiprocessing.active_children()}
        second = workers_of(whose)
        assert first & second
        assert len(first | second) <= 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kept_worker_that_died_is_replaced(number: signal.Signals) -> None:
    with kept():
        first = workers_of(whose)
        (struck,) = [child for child in multiprocessing.active_children() if child.pid == min(first)]
        os.kill(min(first), number)
        struck.join(10)
        second = workers_of(whose)
        assert min(first) not in second
    assert not any(map(psutil.pid_exists, first | second))


def test_workers_of_a_stage_that_failed_are_not_kept() -> None:
    with kept():
        first = workers_of(whose)
        with pytest.raises(ValueError, match="2"):
            workers_of(fail_at_two)
        assert not any(map(psutil.pid_exists, first))
        assert workers_of(fail_at_two, [0, 1]) == {0, 1}
    assert not multiprocessing.active_children()


def test_fewer_workers_than_a_stage_wants_are_not_enough() -> None:
    with kept():
        few = set(run_pieces(whose, range(4), workers=2))
        more = set(run_pieces(whose, range(12), workers=3))
        assert len(more) == 3
        assert not few & more
        assert set(run_pieces(whose, range(4), workers=2)) <= more
