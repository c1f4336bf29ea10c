"""`corpus sample --timings`: time and memory of a token, with and without the cache of keys and values.

In: a model. Out: seconds of the next token and bytes of memory at positions up to the context, tokens per second for
several batch sizes, and a picture of them.
Method: with the cache one text of random tokens grows token by token through the cache that sampling uses; without it
the same network reads the whole text for each next token. A time is the median over the repeats. A peak is the minimum,
because memory that earlier passes left only adds to it.
Memory: `kept` is the exact size of keys and values; `peak` is the peak memory of the device, on a CPU that of the
process, weights included; None where the system does not report it.
Cost: two passes over the context for each repeat, and one text without the cache for each position.
"""

# Shape suffixes: b rows of the batch, n tokens of the text; _1n is one row.
from __future__ import annotations

import dataclasses
import io
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corpus.generate.config import SampleConfig, TimingsConfig
from corpus.generate.engine.batch import Batch
from corpus.generate.engine.model import Model, memory_errors
from corpus.pipeline.progress import SILENT, Progress
from corpus.train.model.kv_cache import SlidingCache

_NEIGHBOURS = 4
"""Steps on each side of a position that its median includes: a single step is too short to time."""
_PROMPT_TOKENS = 16
_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_WIDTH_IN, _HEIGHT_IN, _DPI = 12.0, 4.0, 110
_MB = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """The next token after a text of `position` tokens."""

    position: int
    cached_s: float
    """Seconds with the cache."""
    recomputed_s: float
    """Seconds without it, the whole text read again."""
    kept_bytes: int
    """Bytes of the text's keys and values."""
    cached_peak_bytes: int | None
    recomputed_peak_bytes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """Samples written in one batch."""

    batch_size: int
    tokens_per_second: float
    """Of all rows together, sampling included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Result of `measure`, and the machine."""

    machine: dict[str, Any]
    points: tuple[Point, ...]
    throughput: tuple[Throughput, ...]

    def to_dict(self) -> dict[str, Any]:
        """The content of `timings.json`; times in seconds, memory in bytes."""
        return dataclasses.asdict(self)


def measure(config: TimingsConfig, model: Model, *, progress: Progress = SILENT) -> Timings:
    """Time a model.

    Raises:
        DeviceError: the device is out of memory.

    """
    positions = config.positions_of(model.context)
    torch.manual_seed(config.seed)
    vocabulary = model.network.config.vocab_size
    ids_1n = torch.randint(vocabulary, (1, positions[-1]), device=model.network.device)
    count = config.repeats * (positions[-1] + len(positions))
    with memory_errors(), progress.bar("timings", count, "steps"):
        _time_cached(model, ids_1n[:, : 2 * _NEIGHBOURS], positions[:1], SILENT)  # warm-up
        cached = [_time_cached(model, ids_1n, positions, progress) for _ in range(config.repeats)]
        recomputed = [_time_recomputed(model, ids_1n, positions, progress) for _ in range(config.repeats)]
        points = [
            Point(
                position=position,
                cached_s=statistics.median(run[index].seconds for run in cached),
                recomputed_s=statistics.median(run[index].seconds for run in recomputed),
                kept_bytes=cached[0][index].kept,
                cached_peak_bytes=_least(run[index].peak for run in cached),
                recomputed_peak_bytes=_least(run[index].peak for run in recomputed),
            )
            for index, position in enumerate(positions)
        ]
        throughput = [_throughput(model, size, config) for size in config.batch_sizes]
    return Timings(machine=_machine(model, config), points=tuple(points), throughput=tuple(throughput))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    seconds: float
    peak: int | None
    kept: int = 0


def _time_cached(model: Model, ids_1n: Tensor, positions: Sequence[int], progress: Progress) -> list[_Step]:
    """One text token by token; time and memory of the steps near each position."""
    tokens: list[int] = ids_1n[0].tolist()
    seconds: list[float] = []
    kept: dict[int, int] = {}
    peaks: dict[int, int | None] = {}
    _reset_peak(model.network.device)
    cache = SlidingCache(model, [tokens[:1]], [0])
    for position, token in enumerate(tokens[1:], 2):
        started = time.perf_counter()
        cache.step(torch.tensor([token], device=model.network.device))
        _wait(model.network.device)
        seconds.append(time.perf_counter() - started)
        if position in positions:
            kept[position], peaks[position] = cache.kept_bytes, _peak(model.network.device)
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
def _time_recomputed(model: Model, ids_1n: Tensor, positions: Sequence[int], progress: Progress) -> list[_Step]:
    """The text up to each position in one pass without a cache."""
    steps = []
    for position in positions:
        _reset_peak(model.network.device)
        started = time.perf_counter()
        model.network(ids_1n[:, :position], use_cache=False, logits_to_keep=1)
        _wait(model.network.device)
        seconds = time.perf_counter() - started
        progress.advance(1)
        steps.append(_Step(seconds=seconds, peak=_peak(model.network.device)))
    return steps


def _throughput(model: Model, size: int, config: TimingsConfig) -> Throughput:
    """Tokens per second of samples that cannot end early."""
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
            _CLEAR.write_text("5")  # Linux: resets the peak of the resident size
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


def _least(peaks: Iterable[int | None]) -> int | None:
    return min((peak for peak in peaks if peak is not None), default=None)


def _machine(model: Model, config: TimingsConfig) -> dict[str, Any]:
    """The machine and settings that the figures depend on."""
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


# --- the picture -----------------------------------------------------------------------------------------------------

_Value = Callable[[Point], float | None]
_LINES = ("without cache", "with cache")
_PANELS: tuple[tuple[str, tuple[_Value, _Value]], ...] = (
    ("time of the next token (ms)", (lambda point: point.recomputed_s * 1e3, lambda point: point.cached_s * 1e3)),
    ("keys and values kept (MB)", (lambda _: 0.0, lambda point: point.kept_bytes / _MB)),
    (
        "peak memory, weights included (MB)",
        (
            lambda point: point.recomputed_peak_bytes and point.recomputed_peak_bytes / _MB,
            lambda point: point.cached_peak_bytes and point.cached_peak_bytes / _MB,
        ),
    ),
)


def picture(timings: Timings) -> bytes:
    """Three panels over the position, as the bytes of a PNG; a panel without figures says so."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # 0.3 s, for --timings alone
    from matplotlib.figure import Figure  # noqa: PLC0415  # as above

    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), dpi=_DPI, layout="constrained")
    for panel, (title, values) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        panel.set_title(title, loc="left", fontsize=10)
        panel.set_xlabel("position: tokens of the text so far")
        panel.grid(alpha=0.25)
        for name, value in zip(_LINES, values, strict=True):
            points = [(point.position, value(point)) for point in timings.points if value(point) is not None]
            if points:
                panel.plot(*zip(*points, strict=True), label=name, marker="o", markersize=3, linewidth=1.3)
        if panel.lines:
            panel.set_ylim(0, 1.08 * panel.dataLim.ymax)
            panel.legend(fontsize=8, frameon=False)
        else:
            panel.text(0.5, 0.5, "not measured", transform=panel.transAxes, ha="center", va="center", alpha=0.6)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
