"""Ranges of a file: the kernel reads what its reference reads, and neither reads beyond the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from corpus.pipeline import kernels
from corpus.pipeline.dedup.shingles import reference_gather

Gather = Callable[[int, np.ndarray, np.ndarray, np.ndarray], None]
COMPILED = pytest.mark.skipif(kernels.compiled is None, reason="the kernels were not built: no compiler was at hand")


def kernel(file: int, begins: np.ndarray, sizes: np.ndarray, flat: np.ndarray) -> None:
    assert kernels.compiled is not None
    kernels.compiled.gather(file, begins, sizes, len(begins), flat)


@pytest.mark.parametrize("gather", [reference_gather, pytest.param(kernel, marks=COMPILED)])
def test_ranges_are_read_in_order_and_none_beyond_the_end(gather: Gather, tmp_path: Path) -> None:
    numbers = np.arange(100_000, dtype="<u4")
    path = tmp_path / "numbers"
    path.write_bytes(numbers.tobytes())
    begins, sizes = np.array([70_000, 0, 5, 99_999]), np.array([20_000, 1, 3, 1])
    flat = np.empty(int(sizes.sum()), dtype="<u4")
    with path.open("rb") as file:
        gather(file.fileno(), begins, sizes, flat)
        assert np.array_equal(flat, np.concatenate([numbers[70_000:90_000], [0, 5, 6, 7, 99_999]]))
        with pytest.raises(EOFError, match="beyond the end"):
            gather(file.fileno(), np.array([99_998]), np.array([3]), flat)


@COMPILED
def test_the_kernel_refuses_what_is_no_range() -> None:
    flat = np.empty(2, dtype="<u4")
    for begins, sizes in (([0], [3]), ([-1], [1]), ([0], [-1])):
        with pytest.raises(ValueError, match="no such range"):
            kernel(0, np.array(begins), np.array(sizes), flat)
    with pytest.raises(OSError, match="Bad file descriptor"):
        kernel(-1, np.array([0]), np.array([1]), flat)
