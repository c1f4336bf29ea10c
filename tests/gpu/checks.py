"""What must hold on a GPU as it does on a CPU.

In: a `Setting`. Out: results, each with what was wanted.
Method: where bf16 rounds, a difference is compared with that of the same pass in single precision.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from corpus.generate.config import SampleConfig
from corpus.generate.engine.model import load
from corpus.generate.stage import joined, stream
from corpus.pipeline.progress import SILENT
from corpus.pipeline.storage.row_shards import open_rows
from corpus.pipeline.tokenizer import files, special_tokens
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.data.collate import Collator, Rows
from corpus.train.model import build
from corpus.train.presets import PRESETS
from tests.gpu.setting import Result, Setting

IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention_2", "flex_attention")
_ROWS = 2
_NOISE = 3.0
"""A difference of rounding is at most so many times that between bf16 and single precision."""
_LEAK = 10.0
"""Documents that see each other differ by at least so many times that."""
_CURVE = 2e-2


def batch_of(workspace: Workspace, rows: int) -> tuple[dict[str, Any], int]:
    """A batch as training makes it, of the first rows again and again, and the size of the vocabulary."""
    vocabulary = files.load(workspace.tokenizer)
    name = workspace.finished("packed")[0]
    packed = Rows([open_rows(workspace.packed(name))["train"]])
    table = packed.__getitems__([row % len(packed) for row in range(rows)])
    seq_length = table.schema.field("input_ids").type.list_size
    pad, separator = (vocabulary.token_to_id(name) or 0 for name in (special_tokens.PAD, special_tokens.SEPARATOR))
    collator = Collator(seq_length=seq_length, pad_id=pad, separator=separator)
    return collator(table), vocabulary.get_vocab_size()


def network(setting: Setting, vocab_size: int, seq_length: int) -> Any:
    """A random model whose attention looks somewhere, as a trained one's does."""
    model = build.make(
        PRESETS[setting.model], vocab_size=vocab_size, seq_length=seq_length, separator=0, pad=1, dropout=0.0, seed=1
    )
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_attn.weight.mul_(4)
    return model.eval()


def packed_equals_separate(setting: Setting) -> Iterator[Result]:
    """With each implementation of attention, the logits of a document in its row are those of the document alone."""
    batch, vocab_size = batch_of(setting.workspace, _ROWS)
    inputs = {
        key: value.to(setting.device) if torch.is_tensor(value) else value
        for key, value in batch.items() if "labels" not in key
    }  # fmt: skip
    model = network(setting, vocab_size, inputs["input_ids"].shape[1]).to(setting.device)
    documents = [(row, place) for row in range(_ROWS) for place in _places(inputs["position_ids"][row])]
    exact = _alone(model, inputs, documents)
    through = torch.arange(inputs["input_ids"].shape[1], device=setting.device).expand(_ROWS, -1)
    for name in IMPLEMENTATIONS:
        what = f"packed equals separate, bf16, {name}"
        try:
            model.set_attn_implementation(name)
            half = model.to(torch.bfloat16)
            noise = _difference(_alone(half, inputs, documents), exact)
            together = _difference(_packed(half, inputs, documents), exact)
            leak = _difference(_packed(half, inputs | {"position_ids": through}, documents), exact)
        except (ImportError, ValueError, RuntimeError, NotImplementedError) as error:
            if name in {"eager", "sdpa"}:
                raise
            yield Result(what=what, value=f"not available: {str(error).splitlines()[0][:80]}")
            continue
        finally:
            model.to(torch.float32)
        yield Result(
            what=what, value=f"{together / noise:.2f} of the rounding, {leak / noise:.0f} with one mask a row",
            wanted=f"at most {_NOISE:g}, and above {_LEAK:g}",
            passed=together <= _NOISE * noise and leak > _LEAK * noise,
        )  # fmt: skip


def _places(position_ids: torch.Tensor) -> list[slice]:
    starts = torch.nonzero(position_ids == 0).flatten().tolist()
    return [slice(*bounds) for bounds in zip(starts, [*starts[1:], len(position_ids)], strict=True)]


def _alone(model: Any, inputs: dict[str, Any], documents: list[tuple[int, slice]]) -> torch.Tensor:
    with torch.no_grad():
        each = [model(inputs["input_ids"][row : row + 1, place], use_cache=False).logits[0] for row, place in documents]
    return torch.cat(each).float()


def _packed(model: Any, inputs: dict[str, Any], documents: list[tuple[int, slice]]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(**inputs).logits
    return torch.cat([logits[row, place] for row, place in documents]).float()


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().mean())


def losses(workspace: Workspace) -> list[float]:
    """The losses of a run, in order."""
    lines = (workspace.models / "one" / "metrics.jsonl").read_text().splitlines()
    return [each["loss"] for each in map(json.loads, lines) if "loss" in each]


def compare(what: str, one: list[float], other: list[float]) -> Result:
    """Whether two curves are one."""
    off = max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))
    return Result(what=what, value=f"losses differ by {off:.1e}", wanted=f"at most {_CURVE:g}", passed=off <= _CURVE)


def resume(setting: Setting) -> Iterator[Result]:
    """A run whose end is gone takes the same steps again, with AdamW and with Muon."""
    for optimizer in ("adamw", "muon"):
        whole = setting.copy(f"resume-{optimizer}")
        settings: dict[str, Any] = {"optimizer": optimizer, "schedule": "wsd"}
        report = setting.train(whole, **settings)
        before, weights = losses(whole), (report.folder / "model.safetensors").read_bytes()
        (report.folder / "ledger.json").unlink()
        shutil.rmtree(report.folder / "checkpoint-6")
        again = setting.train(whole, **settings)
        result = compare(f"resume, {optimizer}", losses(whole), before)
        same = (report.folder / "model.safetensors").read_bytes() == weights
        resumed = again.details["resumed_from"] == 4
        yield Result(
            what=result.what, value=f"{result.value}, weights {'equal' if same else 'differ in bits'}",
            wanted=f"{result.wanted}, from step 4", passed=bool(result.passed) and resumed,
        )  # fmt: skip


def compiled(setting: Setting) -> Iterator[Result]:
    """`--compile` changes the speed alone."""
    plain, other = setting.copy("plain"), setting.copy("compiled")
    setting.train(plain)
    setting.train(other, compile=True)
    yield compare("--compile", losses(other), losses(plain))


def two_processes(setting: Setting) -> Iterator[Result]:
    """Two processes, on one card, have the curve of one."""
    one, two = setting.copy("one-process"), setting.copy("two-processes")
    setting.train(one)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = Path(__file__).with_name("one_of_two.py")
    values = [str(launcher), str(two.root), json.dumps(setting.settings())]
    group = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, *values], env=os.environ | group | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(next(error for error in errors if error).strip().splitlines()[-1])
    device = json.loads((two.models / "one" / "timings.json").read_bytes())["device"]
    if not device.startswith("2 processes"):
        raise RuntimeError(f"the processes did not meet: {device}")
    yield compare("two processes on one device, gloo", losses(two), losses(one))


def batched_equals_single(setting: Setting) -> Iterator[Result]:
    """A sample does not depend on the others of its batch."""
    for precision in ("fp32", "bf16"):
        model = load(setting.model_folder(), device=setting.device, precision=precision)
        texts = []
        for batch_size in (1, 6):
            config = SampleConfig(
                prompts=("春天", "为什么天是蓝的？"), num_samples=3, seed=1, batch_size=batch_size,
                max_new_tokens=12 if setting.tiny else 64,
            )  # fmt: skip
            texts.append({key: text for key, (text, _) in joined(stream(model, config), SILENT).items()})
        equal = sum(texts[0][key] == texts[1][key] for key in texts[0])
        yield Result(
            what=f"sampling, batched equals single, {precision}", value=f"{equal} of {len(texts[0])} samples",
            wanted="all" if precision == "fp32" else "-, bf16 rounds by the shape of a batch",
            passed=equal == len(texts[0]) if precision == "fp32" else None,
        )  # fmt: skip
