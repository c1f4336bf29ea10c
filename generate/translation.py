"""`corpus evaluate --benchmark translation`: GPT-2's zero-shot translation, measured by BLEU and chrF.

In: a model, and the documents of a translation dataset in the workspace. Out: both figures by number of examples, and
each translation.
Method: a document is `translate english to chinese, ENGLISH, CHINESE`, as it was packed; the model reads it up to the
Chinese and writes the rest, the likeliest token each time, until the separator or the end
of the line. Examples are documents of the training
split before it, each with its separator. BLEU is sacrebleu's with its tokenizer `zh`, chrF its default.
Invariants: documents are those that no list leaves out, spread evenly over the split; examples depend on the seed and
the draw alone, and those of fewer are the first of those of more.
Cost: one step of the model for each token written.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from corpus.generate.config import SampleConfig
from corpus.generate.engine.model import Model, load
from corpus.generate.few_shot import Form
from corpus.generate.stage import joined, stream_ids
from corpus.pipeline.errors import BenchmarkError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import parts
from corpus.pipeline.templates import TRANSLATE
from corpus.pipeline.workspace.layout import Workspace

_POOL = 4096
"""Most documents that examples are drawn from: the first ones of the training split."""
_PACKAGE = "sacrebleu"


@dataclass(frozen=True, kw_only=True, slots=True)
class TranslationConfig:
    """Which documents are translated, and after how many examples."""

    model: Path
    dataset: str = ""
    """The translation dataset; the workspace's only one when empty."""
    split: str = "validation"
    shots: tuple[int, ...] = (0,)
    orders: int = 3
    """Draws of the examples."""
    limit: int = 0
    """Most documents, spread evenly; 0 for all."""
    seed: int = 1
    max_new_tokens: int = 128
    """Most tokens of a translation."""
    batch_size: int = 16
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class Pair:
    """A document of a translation dataset."""

    prompt: str
    """Up to the Chinese."""
    target: str
    """The Chinese."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TranslationRun:
    """All documents after one draw of examples."""

    shots: int
    draw: int
    bleu: float
    chrf: float
    ended: int
    """Translations that ended with the separator, not at the most tokens."""
    texts: tuple[str, ...]
    """The translations, in the order of the documents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """A model on the documents of one split."""

    dataset: str
    split: str
    pairs: tuple[Pair, ...]
    runs: tuple[TranslationRun, ...]
    seconds: float
    signatures: dict[str, str]
    """How sacrebleu counted, as it writes it."""

    @property
    def shots(self) -> list[int]:
        """Numbers of examples, in the order asked for."""
        return list(dict.fromkeys(run.shots for run in self.runs))

    def summary(self, shots: int) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation over the draws of `bleu` and `chrf`, and the share that `ended`."""
        runs = [run for run in self.runs if run.shots == shots]
        values = {
            "bleu": [run.bleu for run in runs],
            "chrf": [run.chrf for run in runs],
            "ended": [run.ended / len(self.pairs) for run in runs],
        }
        return {
            name: (statistics.fmean(each), statistics.stdev(each) if len(each) > 1 else 0.0)
            for name, each in values.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the texts."""
        return {
            "benchmark": "translation",
            "dataset": self.dataset,
            "split": self.split,
            "items": len(self.pairs),
            "seconds": self.seconds,
            "packages": {_PACKAGE: metadata.version(_PACKAGE)},
            "signatures": self.signatures,
            "shots": {
                str(shots): {
                    name: {"mean": mean, "deviation": deviation}
                    for name, (mean, deviation) in self.summary(shots).items()
                }
                for shots in self.shots
            },
        }

    def samples(self) -> list[dict[str, Any]]:
        """A line of `samples.jsonl` for each translation."""
        return [
            {"shots": run.shots, "draw": run.draw, "prompt": pair.prompt, "reference": pair.target, "text": text}
            for run in self.runs
            for pair, text in zip(self.pairs, run.texts, strict=True)
        ]


def run(config: TranslationConfig, workspace: Workspace, *, progress: Progress = SILENT) -> Translation:
    """Translate the documents of a split.

    Raises:
        BenchmarkError: sacrebleu is not installed, there is no translation dataset, or it has too few documents.
        WorkspaceError, DamageError: the documents cannot be read.
        ModelError, TokenizerError, DeviceError: as `corpus.generate.engine.model.load`.

    """
    started = time.perf_counter()
    if find_spec(_PACKAGE) is None:
        raise BenchmarkError(
            "--benchmark translation needs sacrebleu, which is not installed",
            hint="Type: pip install 'corpus-zh[eval]'",
        )
    dataset = _dataset(workspace, config.dataset)
    pairs = _pairs(workspace, dataset, config.split, config.limit, progress)
    pool = _pool(workspace, dataset, progress) if any(config.shots) else []
    if len(pool) < max(config.shots):
        raise BenchmarkError(
            f"{dataset} has {len(pool)} training documents, --shots asks for {max(config.shots)}",
            hint=f"Give --shots {len(pool)} or fewer.",
        )
    model = load(config.model, device=config.device, precision=config.precision)
    runs = [
        _translate(config, model, pairs, pool, many, number, progress)
        for many in dict.fromkeys(config.shots)
        for number in range(config.orders if many else 1)
    ]
    return Translation(
        dataset=dataset, split=config.split, pairs=tuple(pairs), runs=tuple(runs), signatures=_signatures(pairs),
        seconds=round(time.perf_counter() - started, 3),
    )  # fmt: skip


def score(texts: Sequence[str], references: Sequence[str]) -> tuple[float, float]:
    """BLEU and chrF of translations."""
    from sacrebleu.metrics import BLEU, CHRF  # noqa: PLC0415  # an extra

    return (
        float(BLEU(tokenize="zh").corpus_score(texts, [references]).score),
        float(CHRF().corpus_score(texts, [references]).score),
    )


def _signatures(pairs: Sequence[Pair]) -> dict[str, str]:
    from sacrebleu.metrics import BLEU, CHRF  # noqa: PLC0415  # an extra

    references = [pair.target for pair in pairs]
    found = {}
    for name, metric in (("bleu", BLEU(tokenize="zh")), ("chrf", CHRF())):
        metric.corpus_score(references, [references])  # the number of references belongs to the signature
        found[name] = str(metric.get_signature())
    return found


def _dataset(workspace: Workspace, wanted: str) -> str:
    """The translation dataset that is meant."""
    finished = set(workspace.finished("documents"))
    there = [
        name
        for name in workspace.datasets()
        if name in finished and any(each.form == "translation" for each in workspace.manifest(name).shapes.values())
    ]
    if wanted and wanted not in there:
        raise BenchmarkError(
            f"{wanted} holds no documents of a translation dataset",
            hint=f"Give --dataset {' or '.join(there)}." if there else "Run `corpus ingest` for a translation dataset.",
        )
    if not wanted and len(there) != 1:
        raise BenchmarkError(
            f"the workspace holds {len(there)} datasets of translations",
            hint=f"Give --dataset {' or '.join(there)}." if there else "Run `corpus ingest` for a translation dataset.",
        )
    return wanted or there[0]


def _pairs(workspace: Workspace, dataset: str, split: str, limit: int, progress: Progress) -> list[Pair]:
    """The documents of a split, spread evenly."""
    selection.documents_of(workspace, dataset, progress)
    found = list(_read(workspace, dataset, split))
    if not found:
        raise BenchmarkError(f"{dataset} has no {split} documents", hint="Give another --split.")
    wanted = min(len(found), limit) if limit else len(found)
    return [found[number] for number in np.arange(wanted) * len(found) // wanted]


def _pool(workspace: Workspace, dataset: str, progress: Progress) -> list[Pair]:
    """Documents that examples are drawn from."""
    selection.documents_of(workspace, dataset, progress)
    return _read(workspace, dataset, "train", _POOL)


def _read(workspace: Workspace, dataset: str, split: str, most: int = 0) -> list[Pair]:
    found: list[Pair] = []
    chosen = selection.load(workspace, dataset, removals=True)
    columns = ["text", "prompt_length"]
    for _, batch in selection.read_split(parts(workspace.documents(dataset)), split, columns, chosen):
        for text, length in zip(batch["text"].to_pylist(), batch["prompt_length"].to_pylist(), strict=True):
            if length and text.startswith(TRANSLATE):  # a span that a list leaves out may have stood there
                found.append(Pair(text[:length], text[length:]))
            if most and len(found) == most:
                return found
    return found


def _translate(
    config: TranslationConfig, model: Model, pairs: Sequence[Pair], pool: Sequence[Pair], many: int, number: int,
    progress: Progress,
) -> TranslationRun:  # fmt: skip
    order = list(pool)
    random.Random(f"{config.seed}/{number}").shuffle(order)  # noqa: S311  # a draw, not a secret
    form = Form(begin=str, shots=tuple(pair.prompt + pair.target for pair in order[:many]))
    encode = form.encoder(model)
    prompts = [encode(pair.prompt) for pair in pairs]
    longest_first = sorted(range(len(pairs)), key=lambda at: -len(prompts[at]))
    settings = SampleConfig(
        temperature=0,
        top_k=0,
        stop=("\n",),
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    with progress.bar(f"translation, {many} shots", len(pairs), "texts"):
        pieces = stream_ids(model, [prompts[at] for at in longest_first], settings, progress=progress)
        written = joined(form.answers(pieces), progress)
    ordered = {longest_first[at]: sample for (at, _), sample in written.items()}
    texts = tuple(ordered[at][0].strip() for at in range(len(pairs)))
    bleu, chrf = score(texts, [pair.target for pair in pairs])
    ended = sum(finish.reason == "separator" for _, finish in ordered.values())
    return TranslationRun(shots=many, draw=number, bleu=bleu, chrf=chrf, ended=ended, texts=texts)
