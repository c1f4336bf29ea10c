"""What is asked of the machine that a network runs on."""

from __future__ import annotations

import sys

import pytest

from tests.support import forked

_FAULTS = """
import resource, sys, torch
from corpus.train.model import device
if sys.argv[1] == "kept":
    device.keep_freed_memory()
def faults():
    for _ in range(8):
        torch.ones(16 << 20)  # 64 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_memory_that_a_step_frees_is_kept_for_the_next() -> None:
    """Page faults of eight tensors of 64 MiB: 16,384 pages each where they are mapped anew."""
    faults = {
        name: int(forked.run([sys.executable, "-c", _FAULTS, name], torch=True).stdout) for name in ("default", "kept")
    }
    assert faults["kept"] < 1_000 < faults["default"]
