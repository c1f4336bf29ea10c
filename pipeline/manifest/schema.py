"""The values of a manifest: where a dataset comes from, what its records hold, and how they become documents."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
MemberSplit = Literal["train", "validation", "test", "name", "hash"]
MEMBER_SPLITS: tuple[MemberSplit, ...] = (*SPLITS, "name", "hash")
FORMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # form: (roles that must be named, roles that may be named)
    "article": (("body",), ("title",)),
    "question": (("title", "answer"), ("detail",)),
    "translation": (("source", "target"), ()),
    "chat": (("turns",), ("system", "answer")),
    "ranking": ((), ("prompt", "turns", "system", "chosen", "rejected", "ranking")),
}
NESTED = {"chat", "ranking"}
"""Forms whose documents have a number of parts that differs: turns, or answers."""
FORMATS = ("lines", "array", "csv", "tsv", "text", "file", "parquet")
"""How a file holds its records: a JSON object a line, one JSON array, a table with a header, documents between blank
lines, one document a file, or Parquet."""
DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".md", ".markdown", ".parquet")
"""Endings of files that can hold records."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mirror:
    """One place to download the dataset from."""

    name: str
    files: tuple[str, ...]
    """URLs, all needed; `{hub}` is HF_ENDPOINT or the Hugging Face hub."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One kind of file of records, in the archive or unpacked."""

    pattern: str
    """The last parts of its path; `*` and `?` match no slash. After a leading `**/` they may lie in any folder, and the
    tail is the whole path; `**` is any file with one of DATA_SUFFIXES."""
    split: MemberSplit
    """The official split; "hash": decided by the document's id; "name": the split that the file's name says, else
    decided by the id."""
    shape: str
    """The dataset whose fields and document rule its records follow: mostly this one."""
    bytes: int | None
    """Size of the official file, if known."""
    sha256: str | None
    """Digest of the official file, if known."""
    format: str = field(default="", repr=False)
    """One of FORMATS; found from name and first bytes when empty."""

    def tail(self, path: str) -> str | None:
        """The tail of `path` that the pattern matches.

        >>> Member(pattern="??/wiki_*", split="hash", shape="x", bytes=None, sha256=None).tail("wiki_zh/AA/wiki_00")
        'AA/wiki_00'
        >>> Member(pattern="**/*.md", split="hash", shape="x", bytes=None, sha256=None).tail("a/b/c.md")
        'a/b/c.md'
        """
        if self.pattern == "**":
            return path if path.endswith(DATA_SUFFIXES) else None
        if self.pattern.startswith("**/"):
            return path if replace(self, pattern=self.pattern[3:]).tail(path) is not None else None
        parts = PurePosixPath(path).parts[-len(PurePosixPath(self.pattern).parts) :]
        tail = "/".join(parts)
        wildcards = {"*": "[^/]*", "?": "[^/]"}
        pattern = "".join(wildcards.get(character, re.escape(character)) for character in self.pattern)
        return tail if re.fullmatch(pattern, tail) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Votes:
    """The fields by which the answers to one question are compared; each holds a whole number or a string."""

    question: str = ""
    """What the answers to one question have in common; its text alone when empty."""
    score: str
    """How well an answer is liked, a whole number."""
    time: str = ""
    """A field with a whole number that grows with time; empty where records have no such field."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The fields of a record, and how it becomes a document."""

    fields: dict[str, type]
    """Fields of the records, with their JSON type; `object` for a string or a whole number. A dotted name is the path
    to a nested field."""
    form: str
    """`article`, `question`, `translation`, `chat` or `ranking`."""
    roles: dict[str, str]
    """The field for each part of the form, see FORMS."""
    id_fields: tuple[str, ...]
    """Fields that together identify a record; empty when records have no id."""
    split_field: str = field(default="", repr=False)
    """Field that holds a record's split; empty when the member decides."""
    votes: Votes | None = field(default=None, repr=False)
    """How answers to one question are compared, with the form `question`; no part of what documents are made from."""

    @property
    def is_flat(self) -> bool:
        """Whether every record is an object with these fields at its top, all of one type each."""
        named = (*self.roles.values(), *self.id_fields)
        is_nested = self.form in NESTED or any("." in name for name in named)
        return not is_nested and not self.split_field and object not in self.fields.values()


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Filters and masks for a dataset's documents."""

    min_han: float
    """Smallest share of Han among the characters that are not blank."""
    trim: bool
    """Whether boilerplate lines (editor, source, codes to scan) are cut from the ends of a text."""
    adverts: bool
    """Whether documents that mostly advertise are dropped."""
    off: tuple[str, ...]
    """Filter rules that are switched off."""
    mask: tuple[str, ...]
    """Kinds of personal data that become placeholders."""
    latin_span: int = 0
    """Characters of a span that counts as repeated in text with little Han; as in Chinese text, 6, when 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """One dataset."""

    name: str
    title: str
    summary: str
    homepage: str
    licence: str
    citation: str
    archive: str
    """File name of the official archive; empty for the built-in dataset."""
    archive_bytes: int
    """Published size of the official archive, rounded; 0 without an archive."""
    raw_bytes: int
    """Size of the official records unpacked, rounded as published."""
    records: int
    """Records in the official release, rounded as published."""
    min_length: int
    """Shortest document kept, in characters."""
    min_length_reason: str
    validation_share: float
    """Share of the documents of a member with split "hash" that go to validation."""
    simplify: bool
    """Whether Traditional characters become Simplified ones."""
    drop_empty_brackets: bool
    """Whether brackets that an extraction emptied are deleted."""
    quality: Quality
    mirrors: tuple[Mirror, ...]
    members: tuple[Member, ...]
    shapes: dict[str, Shape]
    """The shapes that `members` refers to, by name."""
    source: str = ""
    """Where the files are when neither --source nor a mirror says so; a relative path is relative to the manifest."""

    @property
    def has_rankings(self) -> bool:
        """Whether its documents are rankings of answers, which only `corpus pack --form ranking` reads."""
        return any(shape.form == "ranking" for shape in self.shapes.values())

    @property
    def votes(self) -> Votes | None:
        """How answers to one question are compared; None where the records do not say."""
        return next((shape.votes for shape in self.shapes.values() if shape.votes), None)

    def member_of(self, path: str) -> tuple[Member, str] | None:
        """The member that `path` is, with the tail of the path that its pattern matches.

        A member converted to Parquet (`X.json.parquet`, `X.parquet`) matches too.
        """
        stem = path.removesuffix(".parquet")
        converted = (stem, f"{stem}.json") if PurePosixPath(path).suffix in {"", ".parquet"} else ()
        for name in dict.fromkeys((path, *converted)):
            for member in self.members:
                tail = member.tail(name)
                if tail is not None:
                    return member, tail
        return None
