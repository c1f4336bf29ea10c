"""What the ledgers of a workspace say, as the report shows it.

In: ledgers, manifests, and the logs of training runs.
Out: plain values.
Invariant: every figure is a ledger's or a sum of a ledger's.
Cost: milliseconds, whatever the corpus.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.pipeline.errors import CorpusError
from corpus.pipeline.manifest import Manifest
from corpus.pipeline.storage.removals import REASON as EXCLUDED
from corpus.pipeline.workspace.files import json_lines
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger, read_ledger

_DRAWABLE = 1e30
"""Larger figures are not drawn."""
NOT_USED = ("exact_duplicate", "near_duplicate", "contaminated", "low_quality", "shared_span")
"""Why documents are left out after ingest, in the order of the stages; `shared_span` is dedup's, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """One dataset's way from records to tokens."""

    name: str
    manifest: Manifest
    records: int
    documents: int
    """Documents that the rules keep, before duplicates and evaluation items are left out."""
    dropped: Mapping[str, int]
    """Records by reason."""
    left_out: Mapping[str, int]
    """Documents on the lists of what is left out, by reason."""
    cleaned: Mapping[str, int]
    """Documents by the rule that changed them."""
    masked: Mapping[str, int]
    splits: Mapping[str, Mapping[str, int]]
    """By split: documents, characters, and once packed rows, tokens, padding and cut_documents."""
    seq_length: int
    """Of its rows; 0 when it is not packed."""

    @property
    def used(self) -> int:
        """Documents on no list."""
        return self.documents - sum(self.left_out.values())

    @property
    def tokens(self) -> int:
        """Tokens of the train split's rows."""
        return self.splits.get("train", {}).get("tokens", 0)

    @property
    def slots(self) -> int:
        """Places for tokens in the rows of all splits."""
        return self.seq_length * sum(split.get("rows", 0) for split in self.splits.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A training run, finished or not."""

    name: str
    model: str
    counts: Mapping[str, Any]
    """The ledger's; empty while the run is not finished."""
    history: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]]
    """Continuations that were logged while it trained."""
    tokens_per_second: float
    device: str

    def points(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of every line of its metrics that has this value."""
        found = [(line["step"], line[name]) for line in self.history if isinstance(line.get(name), int | float)]
        return [(step, value) for step, value in found if abs(value) < _DRAWABLE]

    @property
    def validated(self) -> list[str]:
        """Datasets whose bits per character were measured."""
        ends = "/bits_per_character"
        return sorted({key.removesuffix(ends) for line in self.history for key in line if key.endswith(ends)})


class Problems(dict[str, None]):
    """What could not be read, in words, each once and in order."""

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Keep the failure of a block instead of raising it."""
        try:
            yield
        except CorpusError as error:
            self[f"{error.message}. {error.hint}".strip()] = None

    def ledger(self, folder: Path) -> Ledger | None:
        """The ledger of a stage; None where it is not finished, or its ledger cannot be read."""
        with self.noted():
            return read_ledger(folder)
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """A whole workspace."""

    datasets: Sequence[Dataset]
    dedup: Mapping[str, Any] | None
    decontaminate: Mapping[str, Any] | None
    quality: Mapping[str, Any] | None
    tokenizer: Mapping[str, Any] | None
    """Counts of the stages over all datasets; None where one did not run."""
    evaluations: Sequence[str]
    """Evaluation files that documents were compared with."""
    chat: Mapping[str, Mapping[str, Mapping[str, int]]]
    """Counts of chat rows, by dataset and split."""
    runs: Sequence[Run]
    problems: Problems
    """What could not be read, and so is not shown, in words."""


def gather(workspace: Workspace) -> Facts:
    """Read all ledgers; one that cannot be read is a problem of the facts."""
    problems, chat = Problems(), list[str]()
    dedup, decontaminate = problems.ledger(workspace.dedup), problems.ledger(workspace.decontaminate)
    quality = problems.ledger(workspace.quality)
    lists = (dedup, decontaminate, quality)
    tokenizer = problems.ledger(workspace.tokenizer)
    found = {name: problems.ledger(workspace.documents(name)) for name in workspace.datasets()}
    with problems.noted():
        chat = workspace.finished("chat")
    documents = {name: ledger for name, ledger in found.items() if ledger is not None}
    inputs = decontaminate.inputs if decontaminate else ()
    return Facts(
        datasets=[
            _dataset(workspace.manifest(name), problems.ledger(workspace.packed(name)), ledger, lists)
            for name, ledger in documents.items()
        ],
        dedup=dedup.counts if dedup else None,
        decontaminate=decontaminate.counts if decontaminate else None,
        quality=quality.counts if quality else None,
        evaluations=[Path(entry.path).name for entry in inputs if "/evals/" in entry.path],
        tokenizer=tokenizer.counts if tokenizer else None,
        chat={name: _splits(problems.ledger(workspace.packed(name, "chat"))) for name in chat},
        runs=[_run(path.parent, problems) for path in sorted(workspace.models.glob("*/run.json"))],
        problems=problems,
    )


def _splits(ledger: Ledger | None) -> Mapping[str, Mapping[str, int]]:
    return ledger.counts["splits"] if ledger else {}


def _dataset(manifest: Manifest, packed: Ledger | None, ledger: Ledger, lists: Sequence[Ledger | None]) -> Dataset:
    name, counts = manifest.name, ledger.counts
    splits: dict[str, dict[str, int]] = {
        split: {"documents": count, "characters": counts["characters"].get(split, 0)}
        for split, count in counts["splits"].items()
    }
    for split, rows in _splits(packed).items():
        kept = {key: rows[key] for key in ("rows", "tokens", "padding", "cut_documents")}
        splits.setdefault(split, {"documents": 0}).update(packed_documents=rows["documents"], **kept)
    return Dataset(
        name=name, manifest=manifest, records=counts["records"], documents=counts["documents"],
        dropped=_sorted(counts["dropped"]), left_out=_left_out(name, lists, packed),
        cleaned=_sorted(counts["cleaned"]), masked=_sorted(counts["masked"]), splits=splits,
        seq_length=packed.config["seq_length"] if packed else 0,
    )  # fmt: skip


def _left_out(name: str, lists: Sequence[Ledger | None], packed: Ledger | None) -> dict[str, int]:
    found: Counter[str] = Counter()
    dedup, decontaminate, quality = (ledger.counts["datasets"].get(name) if ledger else None for ledger in lists)
    if lists[0] and dedup:
        found.update({reason: sum(dedup[reason].values()) for reason in NOT_USED[:2]})
        shared = lists[0].counts["spans"]["datasets"][name] if "spans" in lists[0].counts else {}
        found[NOT_USED[4]] = sum(shared.get("left_out", {}).values())
    if decontaminate:
        found[NOT_USED[2]] = decontaminate["whole"]
    if quality:
        found[NOT_USED[3]] = sum(quality[NOT_USED[3]].values())
    if packed:
        found[EXCLUDED] = packed.counts["left_out"].get(EXCLUDED, 0)
    return {reason: found[reason] for reason in (*NOT_USED, EXCLUDED) if found[reason]}


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def _run(folder: Path, problems: Problems) -> Run:
    ledger, begun = problems.ledger(folder), _json(folder / "run.json")
    settings = ledger.config if ledger else begun.get("config") or {}
    timings, counts = _json(folder / "timings.json"), ledger.counts if ledger else {}
    seconds = timings.get("seconds") or 0
    return Run(
        name=folder.name.encode("utf-8", "replace").decode(), model=str(settings.get("model", "")),
        counts=counts, history=_lines(folder / "metrics.jsonl"), samples=_lines(folder / "samples.jsonl"),
        tokens_per_second=counts.get("tokens", 0) / seconds if seconds else 0.0, device=str(timings.get("device", "")),
    )  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    """What a run logged at its steps; empty where it cannot be read."""
    try:
        values = json_lines(path)
    except OSError:
        return []
    return [value for value in values if isinstance(value, dict) and isinstance(value.get("step"), int)]
