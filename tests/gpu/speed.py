"""Tokens a second and MFU of `corpus train` against a bare loop, and of sampling against `generate`.

In: a `Setting`. Out: results without a limit.
Method: the bare loop has the same network, batches, autocast, fused AdamW and clipping, and nothing else. Both leave
their first steps out. MFU is 6 N + 12 L d s FLOPs a token at the rate measured, as a share of the data sheet's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from corpus.generate.config import SampleConfig
from corpus.generate.engine.model import Model, load
from corpus.generate.stage import stream
from corpus.pipeline.progress import Progress
from corpus.train.model.memory import token_flops
from tests.gpu.checks import batch_of, network
from tests.gpu.setting import Result, Setting, synchronize

PEAKS = {
    "H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "RTX 4090": 165e12, "B200": 2250e12,
}  # fmt: skip
"""Dense bf16 FLOP/s of the data sheets; of the SXM version where there are several."""
_LEFT_OUT = 4


class Pace(Progress):
    """When each step ended."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.ends: list[float] = []

    def advance(self, amount: int) -> None:
        """Note the time of a step."""
        if amount:
            synchronize(self.device)
            self.ends.append(time.perf_counter())

    def seconds(self) -> float:
        """Of a step, without the first ones."""
        kept = self.ends[_LEFT_OUT:]
        return (kept[-1] - kept[0]) / (len(kept) - 1)


def training(setting: Setting) -> Iterator[Result]:
    """The Trainer and a bare loop, plain and compiled."""
    rows, passes, steps = (4, 1, 6) if setting.tiny else (16, 2, 24)
    batch, vocab_size = batch_of(setting.workspace, rows)
    seq_length = batch["input_ids"].shape[1]
    flops = token_flops(network(setting, vocab_size, seq_length), seq_length)
    tokens = rows * passes * seq_length
    for compile_model in (False,) if setting.tiny else (False, True):
        pace, name = Pace(setting.device), "compiled" if compile_model else "plain"
        setting.train(
            setting.copy(f"speed-{name}"), pace, max_steps=steps, batch_size=rows * passes, micro_batch_size=rows,
            eval_steps=steps, save_steps=steps, compile=compile_model,
        )  # fmt: skip
        model = network(setting, vocab_size, seq_length).to(setting.device)
        bare = _bare(setting, torch.compile(model) if compile_model else model, batch, passes=passes, steps=steps)
        ours, theirs = tokens / pace.seconds(), tokens / bare
        yield Result(
            what=f"training, {setting.model}, {passes} x {rows} rows of {seq_length:,}, {name}",
            value=f"{ours:,.0f} tokens/s{_mfu(setting, ours * flops)}, {_share(ours, theirs, 'a bare loop')}",
        )


def _bare(setting: Setting, model: Any, batch: dict[str, Any], *, passes: int, steps: int) -> float:
    """Seconds of a step of a loop that does nothing else."""
    optimizer = AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    pace = Pace(setting.device)
    model.train()
    for _ in range(steps):
        for _ in range(passes):
            inputs = {
                key: value.to(setting.device, non_blocking=True) if torch.is_tensor(value) else value
                for key, value in batch.items()
            }
            with torch.autocast(setting.device, torch.bfloat16):
                loss = model(**inputs).loss / passes
            loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        pace.advance(1)
    return pace.seconds()


def _mfu(setting: Setting, rate: float) -> str:
    peak = setting.peak
    if peak is None and setting.device == "cuda":
        name = torch.cuda.get_device_name()
        peak = next((value for key, value in PEAKS.items() if key in name), None)
    return f", MFU {rate / peak:.1%}" if peak else f", {rate:.2g} FLOP/s"


def sampling(setting: Setting) -> Iterator[Result]:
    """`corpus sample` and `model.generate`, the same rows, filter and length."""
    rows, tokens = (2, 8) if setting.tiny else (64, 256)
    model = load(setting.model_folder(), device=setting.device, precision="bf16")
    config = SampleConfig(prompts=("春天",), num_samples=rows, batch_size=rows, max_new_tokens=tokens, seed=1)
    ours = _rate(setting, lambda: _ours(model, config))
    theirs = _rate(setting, lambda: _generate(model, rows, tokens))
    yield Result(
        what=f"sampling, {setting.model}, {rows} rows of {tokens} tokens",
        value=f"{ours:,.0f} tokens/s, {_share(ours, theirs, 'generate')}",
    )


def _share(ours: float, theirs: float, name: str) -> str:
    return f"{ours / theirs:.2f} of {name}'s {theirs:,.0f}"


def _ours(model: Model, config: SampleConfig) -> int:
    return sum(piece.finish.tokens for piece in stream(model, config) if piece.finish)


def _generate(model: Model, rows: int, tokens: int) -> int:
    ids = torch.tensor([model.encode("春天")] * rows, device=model.network.device)
    written = model.network.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=30, max_new_tokens=tokens,
        eos_token_id=model.separator, pad_token_id=model.separator,
    )[:, ids.shape[1] :]  # fmt: skip
    ended = (written == model.separator).cumsum(dim=1)
    return int(((ended - (written == model.separator).long()) == 0).sum())


def _rate(setting: Setting, write: Callable[[], int]) -> float:
    """Tokens a second of the second call; the first one warms up."""
    write()
    synchronize(setting.device)
    start = time.perf_counter()
    tokens = write()
    synchronize(setting.device)
    return tokens / (time.perf_counter() - start)
