"""The card of an export: what is in it, from where, with which rights, and how to start from it.

In: counts and manifests. Out: `README.md`; for text it begins with what the hub and `datasets` read.
Invariant: equal exports give equal bytes.
Cost: milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from corpus.pipeline import manifest as manifests
from corpus.pipeline.export.formats import LINEAGE, Format, Piece
from corpus.pipeline.humanize import markdown_table
from corpus.pipeline.tokenizer.special_tokens import SEPARATOR

Books = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Counts by dataset and split."""


def text(
    form: Format, described: Sequence[manifests.Manifest], books: Books, left_out: Mapping[str, Mapping[str, int]],
    pieces: Sequence[Piece], *, chat: bool, vocab_size: int | None,
) -> str:  # fmt: skip
    """The card."""
    return "\n\n".join(_sections(form, described, books, left_out, pieces, chat=chat, vocab_size=vocab_size)) + "\n"


def _sections(
    form: Format, described: Sequence[manifests.Manifest], books: Books, left_out: Mapping[str, Mapping[str, int]],
    pieces: Sequence[Piece], *, chat: bool, vocab_size: int | None,
) -> Iterator[str]:  # fmt: skip
    loaded = [each for each in described if each.name in books]
    if not form.tokens:
        yield f"---\n{_metadata(form, loaded, books, pieces, chat=chat)}\n---"
    yield f"# {', '.join(books)}: {'questions and answers' if chat else 'documents'} for {form.readers}"
    what = f"as token ids of its tokenizer ({vocab_size:,} entries)" if form.tokens else "as text"
    yield (
        f"The documents of a corpus-zh workspace that are used, {what}: cleaned, without duplicates, without "
        f"evaluation items, without those on the removal list. Made with corpus-zh {version('corpus-zh')}, "
        f"`corpus export --format {form.name}`."
    )
    if form.tokens:
        yield f"After each document stands `{SEPARATOR}`, once. Documents are in the order of the workspace."
    yield "## Splits\n\n" + _splits(books)
    yield "## Left out\n\n" + _left_out(left_out, books)
    yield (
        f"## Lineage\n\n`{LINEAGE}/` has a Parquet file for each part: `document` (shard number << 32 | line in the "
        "workspace's `documents/`), `id`, `file`, `start` and `length` of each document. "
        + _positions(form)
        + " `ledger.json` names every file with its SHA-256, and what it was made of."
    )
    yield "## Source and rights"
    for each in loaded:
        cite = f"\n\nCite: {each.citation}" if each.citation else ""
        yield f"### {each.name}\n\n{manifests.rights_of(each)}{cite}"


def _positions(form: Format) -> str:
    if form.name == "mds":
        return "`start` is the sample in its shard, `length` its tokens with the separator."
    if form.tokens:
        return "`start` and `length` count tokens, the separator included."
    return "`start` is the line or row in its file, `length` its characters."


def _splits(books: Books) -> str:
    keys = ("documents", "characters", *(["tokens"] if _has_tokens(books) else []))
    rows = [
        (dataset, split, *(f"{counts[key]:,}" for key in keys))
        for dataset, splits in books.items()
        for split, counts in splits.items()
    ]
    return markdown_table(("dataset", "split", *keys), rows)


def _has_tokens(books: Books) -> bool:
    return any("tokens" in counts for splits in books.values() for counts in splits.values())


def _left_out(left_out: Mapping[str, Mapping[str, int]], books: Books) -> str:
    rows = [(name, f"`{why}`", f"{count:,}") for name, reasons in left_out.items() for why, count in reasons.items()]
    for name, splits in books.items():
        without = sum(counts.get("without_prompt", 0) for counts in splits.values())
        rows += [(name, "`without_prompt`", f"{without:,}")] if without else []
    return markdown_table(("dataset", "reason", "documents or spans"), rows) if rows else "Nothing."


def _metadata(
    form: Format, loaded: Sequence[manifests.Manifest], books: Books, pieces: Iterable[Piece], *, chat: bool
) -> str:
    from huggingface_hub import DatasetCardData  # noqa: PLC0415  # 0.3 s, only for text

    found = sorted({(piece.dataset, piece.split) for piece in pieces}, key=lambda each: manifests.SPLITS.index(each[1]))
    splits = list(dict.fromkeys(split for _, split in found))
    everything = [{"split": split, "path": f"*/{split}/*{form.suffix}"} for split in splits]
    configs: list[dict[str, Any]] = [{"config_name": "default", "data_files": everything}]
    for name in books:
        files = [{"split": split, "path": f"{name}/{split}/*{form.suffix}"} for owner, split in found if owner == name]
        configs += [{"config_name": name, "data_files": files}] if files else []
    licences = [manifests.licence_of(each) for each in loaded]
    data = DatasetCardData(
        language=["zh", "en"] if "translation2019zh" in books else ["zh"],
        **(licences[0] if len(licences) == 1 else {"license": "other", "license_name": "see-below"}),
        pretty_name=f"{', '.join(books)}, cleaned",
        task_categories=["text-generation"],
        tags=["corpus-zh", "chinese", *(["conversational"] if chat else [])],
        configs=configs,
    )
    return str(data.to_yaml())
