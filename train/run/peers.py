"""What a process of a run says when it has lost the others: a node that died, or a cable that was cut.

In: what torch raises from a collective operation. Out: a `PeerError` that says what to do.
Invariants: a process that dies closes its connections, which ends the others at once; a cut cable closes none, so the
others end when `--ddp-timeout` has passed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import timedelta

import torch.distributed as dist

from corpus.pipeline.errors import PeerError
from corpus.train.model.device import Device

_LOST = re.compile(
    r"gloo/|connection (closed|reset)|broken pipe|timed out waiting|socket timeout|no route to host|ncclremoteerror",
    re.IGNORECASE,
)
"""Gloo raises a bare RuntimeError, in whose text its own source file is named."""


def join(device: Device, timeout_s: int) -> None:
    """Meet the other processes on CPUs, where `transformers` leaves torch's own time-out of 30 minutes."""
    if device.world > 1 and device.kind == "cpu" and not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(seconds=timeout_s))


@contextlib.contextmanager
def peer_errors(device: Device, timeout_s: int) -> Iterator[None]:
    """Raise a PeerError where torch says that another process of the run cannot be reached."""
    try:
        yield
    except RuntimeError as error:
        if device.world == 1 or not is_peer_loss(error):
            raise
        raise PeerError(
            f"process {device.rank} of {device.world} lost the others: {_first_line(error)}",
            hint=f"Look at what the other processes and nodes say; one that is silent for {timeout_s:,} s "
            "(--ddp-timeout) counts as lost. The same command, with any number of processes, resumes from the last "
            "checkpoint.",
        ) from error


def is_peer_loss(error: RuntimeError) -> bool:
    """Whether an error of torch says that another process is gone or silent."""
    return isinstance(error, dist.DistError) or bool(_LOST.search(str(error)))


def _first_line(error: RuntimeError) -> str:
    """What happened, without the place in the source."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[^\]]*gloo/[^\]]*\]\s*", "", line).removesuffix(".")
