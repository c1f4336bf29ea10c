"""A guess as a commented manifest, and the documents that it gives.

In: a sample and a guess. Out: TOML that `corpus ingest --manifest` takes, and some documents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from corpus.pipeline.clean.pii_recognizers import KINDS
from corpus.pipeline.documents.transform import rebuild
from corpus.pipeline.draft.guess import Guess
from corpus.pipeline.draft.sample import Kind, Sample
from corpus.pipeline.manifest import DATASETS, Manifest
from corpus.pipeline.read.spans import RecordFile

_FORMS = {
    "article": "a text, with or without a title",
    "question": "question and answer; `corpus pack --form chat` makes turns of it",
    "translation": "source and target; the document is a translation prompt with its answer",
    "chat": "conversations of several turns; `corpus pack --form chat` learns every answer",
}
_TYPES = {str: "str", int: "int", float: "float", bool: "bool"}
_FORMATS = {"rows": "parquet"}


def name_of(place: str) -> str:
    """A dataset name from a place.

    >>> name_of("data/My Corpus.v2.jsonl.gz")
    'my_corpus'
    """
    last = PurePosixPath(re.sub(r"[?#].*", "", place).rstrip("/")).name
    stem = re.sub(r"\..*", "", last).lower()
    name = re.sub(r"[^a-z0-9_-]+", "_", stem).strip("_-")[:40] or "mine"
    return f"my_{name}"[:41] if name in DATASETS else name


def toml(sample: Sample, kind: Kind, guess: Guess, name: str, source: str) -> str:
    """The manifest, with a comment for each setting."""
    lines = [
        "# A dataset for corpus-zh: `corpus ingest --manifest THIS_FILE`. docs/datasets.md explains every key.",
        f"name = {_quoted(name)}",
        f"title = {_quoted(name)}",
        '# Shown in the dataset card and with every export. Write the licence of the texts, such as "CC-BY-SA-4.0".',
        'licence = "not stated"',
        'homepage = ""',
        'citation = ""',
        "# Where the files are; a relative path is relative to this file. --source overrides it.",
        f"source = {_quoted(source)}",
        f"# Shortest document kept, in characters: at least 98 % of {len(kind.records):,} records are as long.",
        f"min_length = {guess.min_length}",
        "# Share of the documents without an official split that go to validation, by the hash of their ids.",
        "validation_share = 0.005",
        "# Whether Traditional characters become Simplified ones.",
        "simplify = false",
        "# Whether brackets that an extraction left empty, such as （）, are deleted.",
        "drop_empty_brackets = false",
        "",
        "[quality]",
        "# Smallest share of Han, such as 0.02 for a corpus that is to be Chinese; 0 for text of any language.",
        "min_han = 0.0",
        "# Whether lines such as 责任编辑 and 扫码关注 are cut from the ends of a text: for news.",
        "trim = false",
        "# Whether short texts full of advertising phrases are dropped.",
        "adverts = false",
        "# Repetition is counted in spans of 6 characters; in text with less than a tenth of Han, of so many.",
        "latin_span = 20",
        "# Filter rules to switch off; docs/quality.md lists them.",
        "off = []",
        "# Personal data that becomes placeholders such as [手机号].",
        f"mask = [{', '.join(map(_quoted, KINDS))}]",
        "",
        *_members(sample, kind),
        f"# {guess.form}: {_FORMS[guess.form]}.",
        "[document]",
        f"form = {_quoted(guess.form)}",
        *(f"{role} = {_quoted(field)}" for role, field in guess.roles.items()),
    ]
    if guess.id_fields:
        lines.append(f"id = [{', '.join(map(_quoted, guess.id_fields))}]")
    if guess.split_field:
        lines += ["# The field that says the split: train, validation (dev, valid) or test."]
        lines.append(f"split = {_quoted(guess.split_field)}")
    if guess.not_a_split:
        lines.append(f"# Not taken as the split, since a value names none: {_quoted(guess.not_a_split)}.")
    if guess.other_fields:
        lines.append(f"# Kept as metadata: {', '.join(map(_quoted, guess.other_fields))}.")
    if guess.types:
        lines += [
            "",
            "[fields]",
            *(f"{_quoted(field)} = {_quoted(_TYPES[kind])}" for field, kind in guess.types.items()),
        ]
    return "\n".join(lines) + "\n"


def files_text(kind: Kind) -> str:
    """How many files of records there are."""
    return f"{len(kind.names):,} file{'s' if len(kind.names) > 1 else ''} *{kind.suffix}"


def not_taken(sample: Sample, kind: Kind) -> str:
    """The files of a source that the manifest leaves out."""
    skipped = [files_text(each) for each in sample.kinds if each is not kind]
    return ", ".join([*skipped, *([f"{len(sample.others):,} others"] if sample.others else [])])


def _members(sample: Sample, kind: Kind) -> Iterator[str]:
    """The files that hold records."""
    skipped = not_taken(sample, kind)
    yield "[[members]]"
    yield f"# {files_text(kind)}" + (f"; not taken: {skipped}." if skipped else ".")
    yield f'pattern = "**/*{kind.suffix}"'
    yield '# "name": train, valid, dev or test in the name of a file or its folder; files without are split by "hash".'
    yield 'split = "name"'
    yield "# lines, array, csv, tsv, text (a blank line between documents), file (one document a file) or parquet."
    yield f"format = {_quoted(_FORMATS.get(kind.layout, kind.layout))}"
    yield ""


def documents(kind: Kind, manifest: Manifest, count: int = 3) -> Iterator[str]:
    """The first documents as they come out, their prompt and their cleaning included."""
    layout = "text" if kind.layout == "text" else "lines"
    file = RecordFile(
        container="", codec="plain", path=kind.names[0], tail=kind.names[0], split="train", shape=manifest.name,
        layout=layout, bytes=None,
    )  # fmt: skip
    for record in kind.records:
        text = rebuild(manifest, file, record).text
        if text:
            yield text
            count -= 1
        if not count:
            return


def _quoted(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
