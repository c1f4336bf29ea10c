"""Device and precision of a network: the one place that asks what the machine has.

In: what the configuration asks for. Out: a `Device` with every choice made.
Invariant: "auto" takes bf16 only where the hardware computes in it; emulated bf16 is slower than fp32.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from corpus.pipeline.errors import CorpusError, DeviceError
from corpus.train.model import choices

CPU_ROWS = 4
"""Rows of a pass on a CPU: more rows leave its caches."""
GPU_ROWS = 64
"""Rows of a pass that keep an accelerator busy."""
_MALLOC_SETTINGS = {-1: -1, -4: 0}
"""M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h: freed memory is never trimmed, and nothing is mapped alone."""
_WORKERS = 2
_CPU_SHARE = 0.5
_GPU_SHARE = 0.8


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """What one process of a run computes on."""

    kind: str
    """`cpu`, `cuda` (also ROCm), `mps` or `xpu`."""
    precision: str
    """`fp32` or `bf16`."""
    memory: int
    """Bytes that a training step may take."""
    most_rows: int
    """Largest useful number of rows in a pass."""
    workers: int
    """Processes that make batches."""
    compile: bool
    """Whether the model goes through torch.compile."""
    rank: int
    """This process among `world`."""
    world: int
    """Processes of the run, as torchrun started them."""

    def describe(self) -> str:
        """One line for the start of a run."""
        name = {"cpu": f"CPU with {torch.get_num_threads()} threads", "mps": "Apple GPU"}.get(self.kind) or str(
            torch.get_device_module(self.kind).get_device_name()
        )
        many = f"{self.world} processes, each on {name}" if self.world > 1 else name
        return f"{many}, {self.precision}{', compiled' if self.compile else ''}"


def choose(
    device: str, precision: str, *, workers: int | None = None, compile_model: bool = False, threads: int | None = None
) -> Device:
    """Make every choice, and set the number of CPU threads; None stands for a default of the device or of torch.

    Raises:
        DeviceError: the machine has no such device, or it only emulates the bf16 that was asked for.

    """
    if threads is not None:
        torch.set_num_threads(threads)
    kind = pick_kind(device)
    if precision == "bf16" and kind != "cpu" and not computes_bf16(kind):
        raise DeviceError("--precision bf16: this device only emulates it, slowly", hint="Leave --precision out.")
    return Device(
        kind=kind,
        precision=pick_precision(precision, kind),
        memory=_memory(kind),
        most_rows=CPU_ROWS if kind == "cpu" else GPU_ROWS,
        workers=workers if workers is not None else 0 if kind == "cpu" else _WORKERS,
        compile=compile_model,
        rank=choices.rank(),
        world=int(os.environ.get("WORLD_SIZE", "1")),
    )


def keep_freed_memory() -> None:
    """Have glibc's malloc keep the memory that is freed, for the next step of training on a CPU.

    By default each large tensor is mapped and unmapped again, and the kernel clears its pages anew: an eighth of the
    time of a step of `llama-tiny`. The process holds its peak until it ends. Without glibc nothing changes.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for setting, value in _MALLOC_SETTINGS.items():
            mallopt(setting, value)


def pick_kind(device: str) -> str:
    """The kind of device to compute on, as torch calls it; "auto" takes the accelerator, else the CPU.

    Raises:
        DeviceError: the machine has no such device.

    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind = (found.type if found else "cpu") if device == "auto" else device
    if kind != "cpu" and (found is None or found.type != kind):
        available = found.type if found else "the CPU alone"
        raise DeviceError(
            f"--device {kind}: this machine has no such device", hint=f"Leave --device out; torch finds {available}."
        )
    return kind


def pick_precision(precision: str, kind: str) -> str:
    """`fp32` or `bf16`; "auto" takes bf16 where the hardware computes in it."""
    return precision if precision != "auto" else "bf16" if computes_bf16(kind) else "fp32"


def computes_bf16(kind: str) -> bool:
    """Whether the hardware computes in bf16."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "xpu":
        return bool(torch.xpu.is_bf16_supported())
    return False


def fitting_rows(device: Device, *, fixed: int, per_row: int, rows: int) -> int:
    """Rows of a pass: the largest divisor of `rows`, the share of one process, whose step fits the memory; at least 1.

    A step takes `fixed` bytes (weights, gradients, optimizer) and `per_row` for each row of a pass.
    """
    most = max(1, min(device.most_rows, (device.memory - fixed) // per_row))
    return max(divisor for divisor in range(1, min(rows, most) + 1) if rows % divisor == 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device is out of memory; on a CPU torch raises a bare RuntimeError for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)


@contextlib.contextmanager
def memory_errors(failure: CorpusError) -> Iterator[None]:
    """Raise `failure` where torch says that the device is out of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise failure from error


def host_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _memory(kind: str) -> int:
    """Bytes that a step may take: a share of all memory, not of what is free now, so that a rerun chooses the same."""
    if kind == "cpu":
        return int(host_memory() * _CPU_SHARE)
    if kind == "mps":
        return int(torch.mps.recommended_max_memory() * _GPU_SHARE)
    module = torch.get_device_module(kind)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return int(module.get_device_properties(local).total_memory * _GPU_SHARE)
