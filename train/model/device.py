"""Where a run computes and how: the one place that asks what the machine has.

In: the wishes of the configuration. Out: a `Device` with every choice made.
Invariant: bf16 is chosen only where the hardware computes in it; emulated it would be slower than single precision.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from corpus.pipeline.errors import TrainError
from corpus.train.config import TrainConfig

CPU_ROWS = 4
"""Rows of a pass on a CPU: more of them only leave the caches."""
GPU_ROWS = 64
"""Rows of a pass on an accelerator: by then it is busy."""
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
    """Most rows of a pass that are of use."""
    workers: int
    """Processes that make batches."""
    compile: bool
    """Whether the model goes through torch.compile."""
    rank: int
    """This process among `world`."""
    world: int
    """Processes of the run, as torchrun started them."""

    def describe(self) -> str:
        """In words, for the line that a run begins with."""
        name = {"cpu": f"CPU with {torch.get_num_threads()} threads", "mps": "Apple GPU"}.get(self.kind) or str(
            torch.get_device_module(self.kind).get_device_name()
        )
        many = f"{self.world} processes, each on {name}" if self.world > 1 else name
        return f"{many}, {self.precision}{', compiled' if self.compile else ''}"


def choose(config: TrainConfig) -> Device:
    """Make every choice, and set the number of CPU threads.

    Raises:
        TrainError: the machine has no such device, or bf16 is asked for where it is emulated.

    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind = (found.type if found else "cpu") if config.device == "auto" else config.device
    if kind != "cpu" and (found is None or found.type != kind):
        raise TrainError(
            f"--device {kind}: this machine has no such device",
            hint="Leave --device out; torch finds " + (found.type if found else "the CPU alone") + ".",
        )
    real = _computes_bf16(kind)
    if config.precision == "bf16" and not real and kind != "cpu":
        raise TrainError("--precision bf16: this device only emulates it, slowly", hint="Leave --precision out.")
    return Device(
        kind=kind,
        precision=config.precision if config.precision != "auto" else "bf16" if real else "fp32",
        memory=_memory(kind),
        most_rows=CPU_ROWS if kind == "cpu" else GPU_ROWS,
        workers=config.workers if config.workers is not None else 0 if kind == "cpu" else _WORKERS,
        compile=config.compile,
        rank=int(os.environ.get("RANK", "0")),
        world=int(os.environ.get("WORLD_SIZE", "1")),
    )


def fitting_rows(device: Device, *, fixed: int, per_row: int, rows: int) -> int:
    """Rows of a pass: the largest divisor of `rows`, the share of one process, whose step fits the memory; at least 1.

    Args:
        device: its memory and the most rows of use.
        fixed: bytes of a step whatever its rows: weights, gradients, optimizer.
        per_row: bytes of a step for each row.
        rows: rows of a step that fall to one process.

    """
    most = max(1, min(device.most_rows, (device.memory - fixed) // per_row))
    return max(divisor for divisor in range(1, min(rows, most) + 1) if rows % divisor == 0)


def is_full(error: BaseException) -> bool:
    """Whether an error says that the device has no room; on a CPU torch raises a bare RuntimeError for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)


def _computes_bf16(kind: str) -> bool:
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "xpu":
        return bool(torch.xpu.is_bf16_supported())
    return False


def _memory(kind: str) -> int:
    """Bytes of a step that are safe: of the whole memory, not of what is free now, so that a rerun chooses the same."""
    if kind == "cpu":
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _CPU_SHARE)
    if kind == "mps":
        return int(torch.mps.recommended_max_memory() * _GPU_SHARE)
    module = torch.get_device_module(kind)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return int(module.get_device_properties(local).total_memory * _GPU_SHARE)
