"""The closing output of a command: a short table and the path of each ledger, or the same as JSON."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.pipeline.humanize import count_text, repeated, size_text
from corpus.pipeline.terminal import console
from corpus.pipeline.workspace.remote import shown

if TYPE_CHECKING:
    from corpus.pipeline.inspect.status import StageStatus
    from corpus.pipeline.manifest import Manifest
    from corpus.pipeline.workflows import LeftOut
    from corpus.pipeline.workspace.ledger import Report
    from corpus.pipeline.workspace.share import ShareReport


def datasets(manifests: Sequence[Manifest], here: Mapping[str, Sequence[str]], *, as_json: bool) -> None:
    """The datasets, and which areas of the workspace hold each."""
    if as_json:
        fields = ("name", "title", "summary", "homepage", "licence", "records", "raw_bytes", "archive_bytes")
        console.data(
            [{name: getattr(each, name) for name in fields} | {"finished": here[each.name]} for each in manifests]
        )
        return
    shown = {name: [area for area in areas if area in {"packed", "chat"}] or areas[-1:] for name, areas in here.items()}
    rows = [
        (each.name, each.title.removesuffix(each.name).strip() or "-", each.records or "-",
         size_text(each.raw_bytes) if each.raw_bytes else "-", ", ".join(shown[each.name]) or "-")
        for each in manifests
    ]  # fmt: skip
    console.table(("dataset", "what", "records", "size", "here"), rows, left=2)
    for each in manifests:
        console.line(f"{each.name}: {each.summary or 'described by its manifest in the workspace'}")
        console.line(f"  licence: {each.licence}")


def status(rows: Sequence[StageStatus]) -> None:
    """Every stage and its state, with the reason where it is not finished."""
    shown = [
        (f"{row.area}/{row.name}".rstrip("/"), row.state, row.files or "-", size_text(row.bytes) if row.bytes else "-")
        for row in rows
    ]
    console.table(("what", "state", "files", "size"), shown, left=2, spare=("files",))
    for row in rows:
        if row.why:
            console.line(f"{f'{row.area}/{row.name}'.rstrip('/')}: {row.state}: {row.why}")


def closing(
    reports: Sequence[Report], table: Callable[[], None], *, json_only: bool, left_out: Sequence[LeftOut] = (),
    then: str = "",
) -> None:  # fmt: skip
    """The stages as JSON, or as a table and the command to type next."""
    if json_only:
        as_json(reports, left_out)
    else:
        table()
        if then:
            console.line(f"next: {then}")


def as_json(reports: Sequence[Report], left_out: Sequence[LeftOut] = ()) -> None:
    """Every stage as an object with the counts and the path of its ledger; docs/terminal.md lists the fields."""
    stages: list[dict[str, Any]] = [
        {
            "stage": report.ledger.stage,
            "dataset": report.ledger.dataset,
            "skipped": report.skipped,
            "seconds": report.seconds,
            "ledger": shown(report.folder / "ledger.json"),
            "fingerprint": report.ledger.fingerprint,
            "files": len(report.ledger.outputs),
            "bytes": report.ledger.output_bytes,
            "counts": report.ledger.counts,
            "reasons": report.reasons,
            "notes": report.notes,
        }
        for report in reports
    ]
    for stage, out in zip(stages, left_out, strict=False):
        stage["left_out"] = {"documents": out.documents, "characters": out.characters, "reasons": out.reasons}
    console.data(stages)


def download(reports: Sequence[Report]) -> None:
    """Archives and their size."""
    rows = [
        (report.ledger.dataset, len(report.ledger.outputs), size_text(report.ledger.output_bytes), state(report))
        for report in reports
    ]
    console.table(("dataset", "files", "size", "state"), rows)
    ledgers(reports)


def ingest(reports: Sequence[Report], left_out: Sequence[LeftOut] = (), lists: Sequence[Report] = ()) -> None:
    """Records, documents, what was dropped, left out and masked, and why."""
    rows: list[tuple[object, ...]] = []
    pairs = list(itertools.zip_longest(reports, left_out))
    for report, out in pairs:
        counts, documents = report.ledger.counts, out.documents if out else 0
        characters = sum(counts["characters"].values()) - (out.characters if out else 0)
        dropped, used = sum(counts["dropped"].values()), counts["documents"] - documents
        rows.append((report.ledger.dataset, counts["records"], dropped, documents, used, count_text(characters)))
    console.table(("dataset", "records", "dropped", "left out", "used", "characters"), rows)
    for report, out in pairs:
        name, counts = report.ledger.dataset, report.ledger.counts
        console.line(f"{name}: {state(report)}; dropped: {_listed(counts['dropped'])}")
        if out and out.reasons:
            console.line(f"{name}: left out: {_listed(out.reasons)}")
        if counts["masked"]:
            console.line(f"{name}: masked: {_listed(counts['masked'])}")
    for report in lists:
        if not report.skipped:
            console.line(f"{report.ledger.stage}: {state(report)}")
    ledgers([*reports, *lists])


def shares(reports: Sequence[ShareReport], *, as_json: bool) -> None:
    """What a job did with its share of each dataset."""
    if as_json:
        console.data(
            [
                {
                    "stage": each.stage, "dataset": each.dataset, "share": str(each.share), "pieces": each.pieces,
                    "made": each.made, "kept": each.kept, "finished": each.finished, "seconds": each.seconds,
                    "notes": list(each.notes),
                }
                for each in reports
            ]
        )  # fmt: skip
        return
    rows = [(each.dataset or "all", str(each.share), each.pieces or "-", each.made, each.kept) for each in reports]
    console.table(("dataset", "share", "pieces of all", "made", "kept"), rows, left=2)
    for each in reports:
        for note in each.notes:
            console.line(f"note: {note}")
        done = "finished before: nothing to do" if each.finished else f"{each.seconds:,.1f} s"
        console.line(f"{each.dataset or each.stage}: {done}")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "nothing"


def dedup(report: Report) -> None:
    """Duplicates in each dataset, and between datasets."""
    counts = report.ledger.counts
    rows: list[tuple[object, ...]] = []
    for name, seen in counts["datasets"].items():
        documents, exact, near = (sum(seen[key].values()) for key in ("documents", "exact_duplicate", "near_duplicate"))
        own = counts["spans"]["datasets"][name].get("left_out", {}) if "spans" in counts else {}
        rows.append((name, documents, exact, near, documents - exact - near - sum(own.values())))
    title = f"dedup: {counts['clusters']:,} groups, {state(report)}"
    console.table(("dataset", "documents", "exact", "nearly alike", "left"), rows, title=title)
    for name, kept in counts["pairs"].items():
        others = {other: count for other, count in kept.items() if other != name}
        if others:
            console.line(f"{name}: repeats documents of other datasets: {_listed(others)}")
    if counts["largest_clusters"]:
        console.line(f"largest groups (documents × groups): {repeated(counts['largest_clusters'])}")
    if "spans" in counts:
        shared = counts["spans"]
        keys = ("documents", "characters", *(("cut", "left_out") if report.ledger.config.get("cut") else ()))
        found = [
            (name, own["runs"], *(sum(own[key].values()) for key in keys)) for name, own in shared["datasets"].items()
        ]
        title = f"runs of {report.ledger.config['spans']:,} or more characters of earlier documents"
        console.table(("dataset", "runs", *(key.replace("_", " ") for key in keys)), found, title=title)
    ledgers([report])


def decontaminate(report: Report) -> None:
    """Documents of each dataset that hold evaluation items, and which sets were hit."""
    counts = report.ledger.counts
    rows: list[tuple[object, ...]] = []
    for name, seen in counts["datasets"].items():
        documents, contaminated = sum(seen["documents"].values()), sum(seen["contaminated"].values())
        rows.append((name, documents, contaminated, seen["spans"], documents - seen["whole"]))
    title = f"decontaminate: {counts['passages']:,} passages, {state(report)}"
    console.table(("dataset", "documents", "contaminated", "spans cut", "left"), rows, title=title)
    sets = [
        (name, each["items"], each["items_hit"], each["hits"], each["items_too_short"])
        for name, each in counts["evals"].items()
    ]
    console.table(("evaluation set", "items", "found", "hits", "too short"), sets)
    ledgers([report])


def quality(report: Report) -> None:
    """How well the score tells good text, and what it leaves out of each dataset, by length too."""
    counts, rows = report.ledger.counts, list[tuple[object, ...]]()
    lengths: list[dict[str, Any]] = []
    for name, own in counts["datasets"].items():
        documents, out = sum(own["documents"].values()), sum(own["low_quality"].values())
        train = own["documents"].get("train", 0)
        mean, slope = ("-" if own[key] is None else f"{own[key]:.2f}" for key in ("mean_score", "length_correlation"))
        shown, share = f"{name} (positive)" if own["positive"] else name, 1 - out / max(1, train)
        rows.append((shown, documents, out, documents - out, f"{share:.1%}", mean, slope))
        lengths += [] if own["positive"] else own["lengths"]
    model = counts["model"]
    title = f"quality: AUC {model['auc']:.3f} on {sum(model['held_back'].values()):,} held-back texts, {state(report)}"
    headings = ("dataset", "documents", "low quality", "left", "train stays", "score", "length")
    console.table(headings, rows, title=title, spare=("documents",))
    console.line("score: the mean; length: the correlation of score and logarithm of the length")
    shares = []
    for below, group in itertools.groupby(sorted(lengths, key=_limit), key=_limit):
        classes = list(group)
        there, out = (sum(each[key] for each in classes) for key in ("documents", "low_quality"))
        if there:
            shares.append(
                f"{f'below {below:,.0f}' if below < math.inf else 'longer'} {1 - out / there:.1%} of {there:,}"
            )
    console.line(f"train documents that stay, by length in characters: {', '.join(shares)}")
    ledgers([report])


def _limit(entry: Mapping[str, Any]) -> float:
    """The upper limit of a class of lengths."""
    return math.inf if entry["below"] is None else float(entry["below"])


def tokenizer(report: Report) -> None:
    """How well the tokenizer compresses its sample."""
    rows = [
        (
            name,
            f"{row['bytes_per_token']:.2f}",
            f"{row['characters_per_token']:.2f}",
            f"{row['han_with_own_token']:.2%}",
        )
        for name, row in report.ledger.counts["datasets"].items()
    ]
    title = f"tokenizer: {report.ledger.counts['entries']:,} entries, {state(report)}"
    console.table(("sample of", "bytes/token", "characters/token", "Han with own token"), rows, title=title)
    ledgers([report])


def train(report: Report) -> None:
    """Loss and bits per character on each dataset's validation split, or the figures of a task or of PPO's answers."""
    headings = {"loss": "loss", "perplexity": "perplexity", "bits_per_character": "bits/character",
                "bits_per_byte": "bits/byte", "accuracy": "accuracy", "macro_f1": "macro F1", "mcc": "MCC",
                "score": "score", "reward": "reward", "kl": "KL", "length": "tokens", "ended": "ended"}  # fmt: skip
    scores = report.ledger.counts["validation"]
    keys = [key for key in headings if any(key in score for score in scores.values())]
    rows = [(name, *(f"{score[key]:.3f}" for key in keys)) for name, score in scores.items()]
    if rows:
        console.table(("validation", *(headings[key] for key in keys)), rows)
    console.line(f"model: {report.folder} ({state(report)})")
    new = tuple(note for note in report.notes if note not in report.details.get("said", ()))
    ledgers([replace(report, notes=new)])


def presets(*, as_json: bool) -> None:
    """The presets with their settings, and the memory of a training step with one row in a pass."""
    from corpus.train.presets import PRESETS, VOCAB_SIZE, fixed_memory

    if as_json:
        memory = {
            each.name: (each.parameters(), fixed_memory(each.parameters(), "fp32", one_moment=each.one_moment))
            for each in PRESETS.values()
        }
        console.data(
            [
                asdict(each) | {"vocab_size": VOCAB_SIZE, "parameters": memory[each.name][0],
                "fixed_bytes": memory[each.name][1], "row_bytes": each.memory() - memory[each.name][1]}
                for each in PRESETS.values()
            ]
        )  # fmt: skip
        return
    rows = [
        (each.name, each.layers, each.width, each.heads, each.context, each.batch_size,
         f"{each.muon_rate or each.learning_rate:.3g}", f"{each.parameters() / 1e6:,.1f} M", size_text(each.memory()))
        for each in PRESETS.values()
    ]  # fmt: skip
    headings = ("preset", "layers", "width", "heads", "context", "batch", "learning\nrate", "parameters", "memory")
    console.table(headings, rows, spare=("heads", "layers", "width", "context"))
    console.line(
        f"batch: rows of a step; memory: of a step with one row in a pass, in single precision, with {VOCAB_SIZE:,} "
        "entries in the vocabulary. The llama presets train with Muon and wsd at this rate, the others with AdamW. "
        "`corpus train --dry-run` says what your rows take."
    )


def losses(folder: Path) -> None:
    """How the training loss fell, from `metrics.jsonl`."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    points = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    shown = points[:: max(1, len(points) // 8)]
    if points and shown[-1] != points[-1]:
        shown.append(points[-1])
    console.line("loss: " + "  ".join(f"{loss:.2f} (step {step})" for step, loss in shown))


def pack(packed: Sequence[Report], trained: Report | None) -> None:
    """The tokenizer if it was trained first, then rows by split and how full; chat rows count answer tokens."""
    if trained is not None:
        tokenizer(trained)
    chat = any("form" in report.ledger.config for report in packed)
    rows: list[tuple[object, ...]] = []
    for report in packed:
        seq_length = report.ledger.config["seq_length"]
        for split, count in report.ledger.counts["splits"].items():
            used = count["tokens"] / max(1, count["rows"] * seq_length)
            name = report.ledger.dataset if split == "train" else f"  {split}"
            tokens = (count["tokens"], count["answer_tokens"]) if chat else (count["tokens"],)
            rows.append((name, count["documents"], *tokens, count["rows"], f"{used:.2%}", count["cut_documents"]))
    columns = ("tokens", "answers") if chat else ("tokens",)
    console.table(("dataset", "documents", *columns, "rows", "used", "cut"), rows)
    for report in packed:
        rest = sum(count.get("without_prompt", 0) for count in report.ledger.counts["splits"].values())
        if rest:
            console.line(f"{report.ledger.dataset}: not used: {rest:,} documents without question and answer")
    ledgers(packed)


def rankings(packed: Sequence[Report], trained: Report | None) -> None:
    """The tokenizer if it was trained first, then questions, answers and pairs by split, and why others are missing."""
    if trained is not None:
        tokenizer(trained)
    rows = [
        (report.ledger.dataset if at == 0 else "", split, count["rows"], count["answers"], count["pairs"],
         count["tokens"])
        for report in packed
        for at, (split, count) in enumerate(report.ledger.counts["splits"].items())
    ]  # fmt: skip
    console.table(("dataset", "split", "questions", "answers", "pairs", "tokens"), rows, left=2)
    for report in packed:
        for what in ("answers", "pairs"):
            reasons = report.ledger.counts[what]["left_out"]
            if reasons:
                shown = ", ".join(f"{name} {count:,}" for name, count in reasons.items())
                console.line(f"{report.ledger.dataset}: {what} left out: {shown}")
    ledgers(packed)


def export(report: Report) -> None:
    """Documents and tokens by dataset and split, and where they are."""
    books = report.ledger.counts["datasets"]
    keys = ("documents", "characters", *(["tokens"] if "vocab_size" in report.ledger.config else []))
    rows = [
        (dataset, split, *(counts[key] for key in keys))
        for dataset, splits in books.items()
        for split, counts in splits.items()
    ]
    console.table(("dataset", "split", *keys), rows, left=2)
    for dataset, splits in books.items():
        rest = sum(count.get("without_prompt", 0) for count in splits.values())
        if rest:
            console.line(f"{dataset}: not used: {rest:,} documents without question and answer")
    files = f"{len(report.ledger.outputs):,} files, {size_text(report.ledger.output_bytes)}"
    console.line(f"export: {report.folder} ({files}; {state(report)})")
    ledgers([report])


def state(report: Report) -> str:
    """How long a stage took, or that it was finished before."""
    return "was finished" if report.skipped else f"{report.seconds:.1f} s"


def ledgers(reports: Sequence[Report]) -> None:
    """Notes of the stages, then the paths of their ledgers."""
    for report in reports:
        for note in report.notes:
            console.line(f"note: {note}")
    for report in reports:
        console.line(f"ledger: {shown(report.folder / 'ledger.json')}")
