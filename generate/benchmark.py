"""`corpus sample --timings`: what a token costs, with the keys and values of the tokens before it kept, and without.

In: a model. Out: seconds of the next token and bytes of memory at positions up to the context, and tokens a second for
batches of several sizes.
Method: with the cache one text grows token by token through the window that sampling uses; without it the whole text is
read again for the next token, by the same network in the same precision. A time is the median over the repeats, a peak
the least: what the passes before left behind only adds to it. The texts are random tokens: what they say changes no
time.
Memory: `kept` are the bytes of keys and values, exactly; `peak` is the largest memory of the device, or on a CPU of the
process, weights included; None where that cannot be asked for.
Cost: two passes over the context a repeat, and one text without the cache for each position.
"""

# Shape suffixes: b rows of the batch, n tokens of the text; _1n is one row.
from __future__ import annotations

import dataclasses
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corpus.generate.config import SampleConfig, TimingsConfig
from corpus.generate.engine.batch import Batch
from corpus.generate.engine.kv_cache import Window
from corpus.generate.engine.model import Model, memory_errors
from corpus.pipeline.progress import SILENT, Progress

_NEIGHBOURS = 4
"""Steps on each side of a position whose times are taken with it: a single one is a few milliseconds."""
_PROMPT_TOKENS = 16
_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """The next token after a text of `position` tokens."""

    position: int
    cached_s: float
    """Seconds with the keys and values kept."""
    recomputed_s: float
    """Seconds with the whole text read again."""
    kept_bytes: int
    """Keys and values of the text."""
    cached_peak_bytes: int | None
    recomputed_peak_bytes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """Samples written side by side."""

    batch_size: int
    tokens_per_second: float
    """Of all rows together, the choice of the tokens included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """What `measure` found, and on what."""

    machine: dict[str, Any]
    points: tuple[Point, ...]
    throughput: tuple[Throughput, ...]

    def to_dict(self) -> dict[str, Any]:
        """As `timings.json` holds it; times in seconds, memory in bytes."""
        return dataclasses.asdict(self)


def measure(config: TimingsConfig, model: Model, *, progress: Progress = SILENT) -> Timings:
    """Time a model.

    Raises:
        ModelError: the device is full.

    """
    positions = config.positions_of(model.context)
    progress.begin("timings", config.repeats * (positions[-1] + len(positions)), "steps")
    torch.manual_seed(config.seed)
    vocabulary = model.network.config.vocab_size
    ids_1n = torch.randint(vocabulary, (1, positions[-1]), device=model.network.device)
    with memory_errors():
        _grow(model, ids_1n[:, : 2 * _NEIGHBOURS], positions[:1], SILENT)  # what is made once is made before
        grown = [_grow(model, ids_1n, positions, progress) for _ in range(config.repeats)]
        read = [[_read(model, ids_1n[:, :position], progress) for position in positions] for _ in range(config.repeats)]
        points = [
            Point(
                position=position,
                cached_s=statistics.median(run[index].seconds for run in grown),
                recomputed_s=statistics.median(run[index].seconds for run in read),
                kept_bytes=grown[0][index].kept,
                cached_peak_bytes=_least([run[index].peak for run in grown]),
                recomputed_peak_bytes=_least([run[index].peak for run in read]),
            )
            for index, position in enumerate(positions)
        ]
        throughput = [_throughput(model, size, config) for size in config.batch_sizes]
    progress.end()
    return Timings(machine=_machine(model, config), points=tuple(points), throughput=tuple(throughput))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    seconds: float
    peak: int | None
    kept: int = 0


def _grow(model: Model, ids_1n: Tensor, positions: Sequence[int], progress: Progress) -> list[_Step]:
    """One text token by token; what the steps near each position took."""
    tokens: list[int] = ids_1n[0].tolist()
    seconds: list[float] = []
    kept: dict[int, int] = {}
    peaks: dict[int, int | None] = {}
    _reset_peak(model.network.device)
    window = Window(model, [tokens[:1]], [0])
    for position, token in enumerate(tokens[1:], 2):
        started = time.perf_counter()
        window.step(torch.tensor([token], device=model.network.device))
        _wait(model.network.device)
        seconds.append(time.perf_counter() - started)
        if position in positions:
            kept[position], peaks[position] = window.kept_bytes, _peak(model.network.device)
        progress.advance(1)
    # seconds[i] is the step that made the text i + 2 tokens long
    return [
        _Step(
            seconds=statistics.median(seconds[max(0, position - 2 - _NEIGHBOURS) : position - 1 + _NEIGHBOURS]),
            kept=kept[position],
            peak=peaks[position],
        )
        for position in positions
        if position in kept
    ]


@torch.inference_mode()
def _read(model: Model, ids_1n: Tensor, progress: Progress) -> _Step:
    """A whole text in one pass, nothing kept."""
    _reset_peak(model.network.device)
    started = time.perf_counter()
    model.network(ids_1n, use_cache=False, logits_to_keep=1)
    _wait(model.network.device)
    seconds = time.perf_counter() - started
    progress.advance(1)
    return _Step(seconds=seconds, peak=_peak(model.network.device))


def _throughput(model: Model, size: int, config: TimingsConfig) -> Throughput:
    """Tokens a second of samples that do not end before their time."""
    separator = torch.tensor([model.separator], device=model.network.device)
    endless = dataclasses.replace(model, banned=torch.cat([model.banned, separator]))
    tokens = min(config.tokens, model.context - min(_PROMPT_TOKENS, model.context // 2))
    settings = SampleConfig(max_new_tokens=tokens, seed=config.seed)
    length = min(_PROMPT_TOKENS, model.context - tokens)
    prompt = torch.randint(model.network.config.vocab_size, (length,)).tolist()
    rates = []
    for _ in range(config.repeats):
        started = time.perf_counter()
        batch = Batch(endless, [prompt] * size, [(row, 0) for row in range(size)], settings)
        for _ in batch.pieces():
            pass
        rates.append(size * tokens / (time.perf_counter() - started))
    return Throughput(batch_size=size, tokens_per_second=statistics.median(rates))


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif device.type == "cpu":
        try:
            _CLEAR.write_text("5")  # Linux: the largest resident size begins anew
        except OSError:
            return


def _peak(device: torch.device) -> int | None:
    """Largest memory since `_reset_peak`, bytes."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    if device.type == "cpu" and _CLEAR.exists():
        lines = _STATUS.read_text().splitlines()
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), None)
    return None


def _least(peaks: Sequence[int | None]) -> int | None:
    known = [peak for peak in peaks if peak is not None]
    return min(known, default=None)


def _machine(model: Model, config: TimingsConfig) -> dict[str, Any]:
    """What the numbers depend on."""
    device = model.network.device
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{device.type} ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "precision": str(model.network.dtype).removeprefix("torch."),
        "parameters": sum(weight.numel() for weight in model.network.parameters()),
        "context": model.context,
        "torch": torch.__version__,
        "repeats": config.repeats,
    }
