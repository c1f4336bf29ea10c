"""The data card: contents of a dataset's rows, how they were made, and their known defects.

In: ledgers and a manifest. Out: `README.md`, a Hugging Face dataset card, and `croissant.json`, beside the rows.
Invariants: every figure is from a ledger; equal ledgers give equal bytes; both files are made from the ledger of the
rows, so they are not among its outputs.
Cost: milliseconds.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.humanize import markdown_table
from corpus.pipeline.manifest import Manifest, licence_of, rights_of
from corpus.pipeline.pack import croissant
from corpus.pipeline.storage.removal_lists import index_path
from corpus.pipeline.storage.removals import LIST, REASON
from corpus.pipeline.storage.selection import LISTS
from corpus.pipeline.workspace.files import write_atomic
from corpus.pipeline.workspace.layout import ROWS, Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Ledger, read_ledger

CARD, CROISSANT = "README.md", "croissant.json"
_SIZES = (
    (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"),
)  # fmt: skip


def run(workspace: Workspace, datasets: Sequence[str] = (), forms: Sequence[str] = tuple(ROWS)) -> list[Path]:
    """Write the cards of packed datasets, of all by default; the caller holds `workspace.writing()`.

    Raises:
        WorkspaceError: one of them is not packed, or nothing is packed.
        DiskError: a card cannot be written.

    """
    packed = sorted((form, name) for form in forms for name in workspace.finished(ROWS[form]))
    names = {name for _, name in packed}
    for name in datasets:
        if name not in names:
            raise WorkspaceError(f"{name} is not packed", hint=f"Run `corpus pack --dataset {name}` first.")
    if not packed:
        raise WorkspaceError("nothing is packed", hint="Run `corpus pack` first.")
    return [write(workspace, name, form) for form, name in packed if not datasets or name in datasets]


def write(workspace: Workspace, dataset: str, form: str) -> Path:
    """Write the two files of one dataset's rows if they are missing or differ; returns the card's path."""
    folder = workspace.packed(dataset, form)
    ledger, manifest = read_ledger(folder), workspace.manifest(dataset)
    if ledger is None:
        raise WorkspaceError(f"{folder} holds no rows", hint=f"Run `corpus pack --dataset {dataset}` first.")
    for entry in ledger.inputs:
        path = workspace.root / entry.path
        if path.is_file() and workspace.digest(path) != entry.sha256:
            chat = " --form chat" if form == "chat" else ""
            raise WorkspaceError(
                f"{folder} was made from another {entry.path} than the one there now",
                hint=f"Run `corpus pack{chat} --dataset {dataset}` again: it writes the card, too.",
            )
    text = "\n\n".join(_sections(workspace, ledger, manifest, form)) + "\n"
    described = croissant.describe(
        ledger, manifest, form=form, version=version("corpus-zh"), description=_opening(ledger, manifest, form)
    )
    for name, data in ((CARD, text.encode()), (CROISSANT, described)):
        path = folder / name
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)
    return folder / CARD


def _sections(workspace: Workspace, ledger: Ledger, manifest: Manifest, form: str) -> Iterator[str]:
    upstream = _upstream(workspace, ledger, manifest.name)
    documents, tokenizer = upstream.get("documents"), upstream.get("tokenizer")
    yield f"---\n{_metadata(ledger, manifest, form)}\n---"
    yield f"# {manifest.title}, {_FORMS[form]}"
    yield _opening(ledger, manifest, form)
    yield "## Splits\n\n" + _splits(ledger)
    yield "## Source and rights\n\n" + rights_of(manifest)
    yield "## What was done with the records\n\n" + _rules(documents, upstream, ledger)
    yield "## Tokenizer\n\n" + _tokenizer(tokenizer, ledger)
    defects = _DEFECTS + (_CHAT_DEFECTS if form == "chat" else ())
    yield "## Known defects\n\n" + "\n".join(f"- {defect}" for defect in defects)
    yield "## Use\n\n" + _USE
    yield "## Rebuild it\n\n" + _rebuild(documents, upstream, ledger, manifest, form)
    yield "## Have a document removed\n\n" + _REMOVAL
    yield "## Digests\n\n" + _digests(workspace, upstream, ledger, manifest.name, form)
    yield f"## Cite\n\n{manifest.citation}"


_FORMS = {"text": "packed rows", "chat": "packed rows of questions and answers"}
_DEFECTS = (
    "The texts say what they said: errors, prejudices, adverts and out-of-date facts are still there.",
    "Masks take out numbers and addresses of known shapes; names, postal addresses and landlines stay.",
    "Documents that are less than 80 % alike both stay; so may an evaluation item that was reworded.",
    "A few Traditional forms stay that the converter does not know, and a few rules of Markdown.",
    "Cleaning joins blanks, so a gap of blanks in an exam question becomes one blank.",
)
_CHAT_DEFECTS = ("Of a document longer than a row, what follows its first piece carries no loss in training.",)
_USE = (
    '```python\nimport datasets\n\nrows = datasets.load_from_disk("THIS_FOLDER")["train"]\n```\n\n'
    "A row has `input_ids` and `segments`: the part of the row that each document has. Labels, positions and the "
    "document mask are made from `segments`; padding is what follows the last one."
)
_REMOVAL = (
    "`corpus trace --text WORDS` finds a document's id. Written into a file, one a line, `corpus pack --exclude FILE` "
    f"takes it out of the rows; the id stays in the workspace's `{LIST}`, so that a later pack leaves it out too. "
    "Its text is then still in `raw/` and `documents/` of the workspace, which are not a part of the rows. "
    "Models that were trained before have seen it. Ask the maintainer of this copy, and of the collection it came from."
)


def _metadata(ledger: Ledger, manifest: Manifest, form: str) -> str:
    from huggingface_hub import DatasetCardData  # noqa: PLC0415  # 0.3 s, only at the end of pack

    rows = sum(split["rows"] for split in ledger.counts["splits"].values())
    files = [{"split": split, "path": f"{split}/data-*.arrow"} for split in ledger.counts["splits"]]
    data = DatasetCardData(
        language=croissant.languages(manifest),
        **licence_of(manifest),
        pretty_name=f"{manifest.title}, {_FORMS[form]}",
        size_categories=[next((name for limit, name in _SIZES if rows < limit), "n>1T")],
        task_categories=["text-generation"],
        tags=["corpus-zh", "chinese", "pre-tokenized", *(["conversational"] if form == "chat" else [])],
        configs=[{"config_name": "default", "data_files": files}],
    )
    return str(data.to_yaml())


def _opening(ledger: Ledger, manifest: Manifest, form: str) -> str:
    splits = ledger.counts["splits"].values()
    tokens, rows, documents = (sum(split[key] for split in splits) for key in ("tokens", "rows", "documents"))
    return (
        f"{tokens:,} tokens of {documents:,} documents of {manifest.name} in {rows:,} {_FORMS[form]} of "
        f"{ledger.config['seq_length']:,} tokens, with the document behind every token. Made with corpus-zh. "
        f"{manifest.summary}"
    )


def _splits(ledger: Ledger) -> str:
    keys = ("documents", "characters", "tokens", "rows", "padding", "cut_documents")
    rows = [(name, *(f"{split[key]:,}" for key in keys)) for name, split in ledger.counts["splits"].items()]
    return markdown_table(("split", *(key.replace("_", " ") for key in keys)), rows)


def _rules(documents: Ledger | None, upstream: Mapping[str, Ledger], ledger: Ledger) -> str:
    if documents is None:
        return "The documents' ledger is gone; `corpus ingest` makes it again."
    counts = documents.counts
    rows: list[tuple[str, str, str]] = [("read", "records", f"{counts['records']:,}")]
    for what, kind in (("dropped", "dropped"), ("changed", "cleaned"), ("masked", "masked")):
        found = sorted(counts[kind].items(), key=lambda entry: (-entry[1], entry[0]))
        rows += [(what, f"`{name}`", f"{count:,}") for name, count in found]
    left_out = sorted(ledger.counts["left_out"].items())
    without = sum(split.get("without_prompt", 0) for split in ledger.counts["splits"].values())
    left_out += [("without_prompt", without)] if without else []
    rows += [("left out", f"`{name}`", f"{count:,}") for name, count in left_out]
    notes = [f"Shortest document: {documents.config['min_length']:,} characters."]
    if "dedup" not in upstream:
        notes.append("Duplicates were not looked for.")
    if "decontaminate" not in upstream:
        notes.append("No evaluation set was compared with.")
    else:
        inputs = upstream["decontaminate"].inputs
        names = sorted(Path(entry.path).name for entry in inputs if "/evals/" in entry.path)
        notes.append(f"Compared with the evaluation sets {', '.join(f'`{name}`' for name in names)}.")
    if "quality" in upstream:
        good = ", ".join(f"`{name}`" for name in upstream["quality"].counts["model"]["positive"])
        notes.append(f"Scored by likeness to {good}; most training documents of a low score were left out.")
    return markdown_table(("what", "rule or reason", "records or documents"), rows) + "\n\n" + " ".join(notes)


def _tokenizer(tokenizer: Ledger | None, ledger: Ledger) -> str:
    entries = f"Byte-level BPE with {ledger.config['vocab_size']:,} entries"
    if tokenizer is None:
        return f"{entries}; its ledger is gone."
    trained = ", ".join(tokenizer.config["datasets"])
    digest = next(entry.sha256 for entry in tokenizer.outputs if entry.path == "tokenizer.json")
    return f"{entries}, trained on {trained}. `tokenizer.json` has SHA-256 `{digest}`."


def _rebuild(
    documents: Ledger | None, upstream: Mapping[str, Ledger], ledger: Ledger, manifest: Manifest, form: str
) -> str:
    """The commands that make the same rows, with all settings that differ from the defaults."""
    lines = []
    if documents is not None:
        quality = documents.config["quality"]
        parts = [f"corpus ingest --dataset {manifest.name} --min-length {documents.config['min_length']}"]
        parts += [f"--no-rule {name}" for name in quality["off"]]
        parts += ["--no-mask"] if manifest.quality.mask and not quality["mask"] else []
        parts += ["--no-dedup"] if "dedup" not in upstream else []
        parts += ["--against FILE"] if "decontaminate" in upstream else []
        lines.append(" ".join(parts))
    if "dedup" in upstream:
        compared = upstream["dedup"].config
        named = " ".join(f"--dataset {name}" for name in compared["datasets"])
        near = f"--threshold {compared['threshold']}" if compared["near"] else "--no-near"
        shared = f" --spans {compared['spans']}{' --cut' if compared.get('cut') else ''}" if "spans" in compared else ""
        lines.append(f"corpus dedup {named} {near}{shared}")
    lines += [_quality_command(upstream["quality"])] if "quality" in upstream else []
    tokenizer = upstream.get("tokenizer")
    if tokenizer is not None:
        named = " ".join(f"--dataset {name}" for name in tokenizer.config["datasets"])
        lines.append(
            f"corpus tokenizer {named} --vocab-size {tokenizer.config['vocab_size']}"
            f" --sample-characters {tokenizer.config['sample_characters']}"
        )
    shape = f"--seq-length {ledger.config['seq_length']} --strategy {ledger.config['strategy']}"
    excluded = " --exclude FILE" if REASON in ledger.config else ""
    lines.append(f"corpus pack --dataset {manifest.name} {'--form chat ' if form == 'chat' else ''}{shape}{excluded}")
    return "```sh\n" + "\n".join(lines) + "\n```\n\nThe same records, settings and version give the same bytes."


def _quality_command(scored: Ledger) -> str:
    config = scored.config
    words = ["corpus quality"] + (["--model FILE"] if config["model"] else [])
    if not config["model"]:
        words += [f"--positive {shlex.quote(name)}" for name in config["positive"]]
        words += [f"--field {shlex.quote(name)}" for name in config["fields"]]
    words += [f"--dataset {name}" for name, own in scored.counts["datasets"].items() if not own["positive"]]
    return " ".join([*words, f"--alpha {config['alpha']:g}"])


def _upstream(workspace: Workspace, rows: Ledger, dataset: str) -> dict[str, Ledger]:
    """The ledgers of the stages that the rows come from, by area, without lists made after the rows."""
    used = {entry.path for entry in rows.inputs}
    folders = {
        "raw": workspace.raw(dataset),
        "documents": workspace.documents(dataset),
        "dedup": workspace.dedup,
        "decontaminate": workspace.decontaminate,
        "quality": workspace.quality,
        "tokenizer": workspace.tokenizer,
    }
    found = {area: read_ledger(folder) for area, folder in folders.items()}
    indexes = {area: workspace.relative(index_path(folders[area], dataset)) for area in LISTS}
    return {
        area: ledger
        for area, ledger in found.items()
        if ledger is not None and (area not in LISTS or indexes[area] in used)
    }


def _digests(workspace: Workspace, upstream: Mapping[str, Ledger], ledger: Ledger, dataset: str, form: str) -> str:
    places = {area: f"{area}/{dataset}" if area in {"raw", "documents"} else area for area in upstream}
    paths = [f"{place}/{LEDGER}" for place in places.values()] + [f"{ROWS[form]}/{dataset}/{LEDGER}"]
    rows = [(path, f"`{workspace.digest(workspace.root / path)}`") for path in paths]
    archives = upstream["raw"].outputs if "raw" in upstream else ()
    rows += [(f"raw/{dataset}/{entry.path}", f"`{entry.sha256}`") for entry in archives[:20]]
    more = f" {len(archives) - 20:,} more files are named in the ledger of raw." if len(archives) > 20 else ""
    shards = sum(output.path.endswith(".arrow") for output in ledger.outputs)
    return (
        markdown_table(("file", "SHA-256"), rows)
        + f"\n\nThe last ledger names the digests of the {shards:,} shards.{more}"
    )
