"""Manifests: TOML in, frozen values out.

In: a TOML file that says where a dataset comes from, what its records hold and how a record becomes a document. Out: a
frozen `Manifest`.
Invariants: an unknown key, a missing key or a wrong type raises a ManifestError that names file and key; nothing in a
manifest is executed, or used as a path outside the workspace.
Cost: about a millisecond.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar

from corpus.pipeline.errors import ManifestError

T = TypeVar("T")
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FORMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # form: (roles that must be named, roles that may be named)
    "article": (("body",), ("title",)),
    "question": (("title", "answer"), ("detail",)),
    "translation": (("source", "target"), ()),
}
_FIELD_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}


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
    """The last parts of its path; `*` and `?` match no slash."""
    split: Split | Literal["hash"]
    """The official split, or "hash": decided by the document's id."""
    shape: str
    """The dataset whose fields and document rule its records follow: mostly this one."""
    bytes: int | None
    """Size of the official file, if known."""
    sha256: str | None
    """Digest of the official file, if known."""

    def tail(self, path: str) -> str | None:
        """The tail of `path` that the pattern matches.

        >>> Member(pattern="??/wiki_*", split="hash", shape="x", bytes=None, sha256=None).tail("wiki_zh/AA/wiki_00")
        'AA/wiki_00'
        """
        parts = PurePosixPath(path).parts[-len(PurePosixPath(self.pattern).parts) :]
        tail = "/".join(parts)
        wildcards = {"*": "[^/]*", "?": "[^/]"}
        pattern = "".join(wildcards.get(character, re.escape(character)) for character in self.pattern)
        return tail if re.fullmatch(pattern, tail) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The fields of a record, and how it becomes a document."""

    fields: dict[str, type]
    """Every field of the records, with its JSON type."""
    form: str
    """`article`, `question` or `translation`."""
    roles: dict[str, str]
    """The field for each part of the form: `title`, `body`, `detail`, `answer`, `source`, `target`."""
    id_fields: tuple[str, ...]
    """Fields that together identify a record; empty when records have no id."""


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
    """Size of the official archive, rounded as published; 0 when there is none."""
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

    def member_of(self, path: str) -> tuple[Member, str] | None:
        """The member that `path` is, with the tail of the path that its pattern matches.

        A member converted to Parquet (`X.json.parquet`, `X.parquet`) matches too.
        """
        stem = path.removesuffix(".parquet")
        for name in dict.fromkeys((path, stem, f"{stem}.json")):
            for member in self.members:
                tail = member.tail(name)
                if tail is not None:
                    return member, tail
        return None


CORPORA = ("wiki2019zh", "news2016zh", "baike2018qa", "webtext2019zh", "translation2019zh")
BUILT_IN = "demo"
DATASETS = (*CORPORA, BUILT_IN)


def load(name: str) -> Manifest:
    """The manifest of a dataset in the package.

    Raises:
        ManifestError: no dataset has this name, or its manifest is malformed.

    """
    if name not in DATASETS:
        raise ManifestError(f"there is no dataset called {name!r}", hint=f"The datasets are: {', '.join(DATASETS)}.")
    resource = files("corpus.manifests") / f"{name}.toml"
    return parse(resource.read_text(encoding="utf-8"), where=f"{name}.toml")


def licence_of(manifest: Manifest) -> dict[str, Any]:
    """The licence in the hub's terms: that of the texts if known; a collection's does not cover them."""
    if manifest.name == BUILT_IN:
        return {"license": "mit"}
    known = "cc-by-sa" if "CC BY-SA" in manifest.licence else "unsettled"
    return {"license": "other", "license_name": known, "license_link": manifest.homepage}


def rights_of(manifest: Manifest) -> str:
    """Source, licence and what is not settled about it, in Markdown."""
    if manifest.name == BUILT_IN:
        return "The texts were written for corpus-zh and stand under its licence."
    source = f"Source: {manifest.homepage}. Licence: {manifest.licence}."
    if "CC BY-SA" in manifest.licence:
        return (
            f"{source}\n\nThe texts are those of Wikipedia's authors. Name the source when you pass them on, and "
            "keep the licence. Whether it reaches a model that was trained on them is **not settled**."
        )
    return (
        f"{source}\n\n"
        "**The rights in the texts are not settled.** The collection was published in 2019 under a licence of its own; "
        "its authors gathered texts of others and do not say with what right. Use beyond research needs an answer that "
        "nobody has given yet."
    )


def parse(text: str, *, where: str) -> Manifest:
    """Parse one manifest; `where` is its name in errors."""
    try:
        table = _Table(tomllib.loads(text), where, "")
    except (ValueError, RecursionError) as error:  # also a number with too many digits, or deep nesting
        raise ManifestError(f"{where} is not TOML: {error}") from error
    name = table.take("name", str)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,40}", name):
        raise table.error("name", f"{name!r} is not a dataset name (lower-case letters, digits, - and _)")
    members = tuple(_member(entry, name) for entry in table.tables("members"))
    if not members:
        raise table.error("members", "at least one is needed")
    shapes: dict[str, Shape] = {}
    for shape in dict.fromkeys(member.shape for member in members):
        if shape != name and shape not in CORPORA:
            raise table.error("members", f"shape {shape!r} is neither this dataset nor one of the corpora")
        shapes[shape] = _shape(table) if shape == name else load(shape).shapes[shape]
    manifest = Manifest(
        name=name,
        title=table.take("title", str),
        summary=table.take("summary", str),
        homepage=table.take("homepage", str),
        licence=table.take("licence", str),
        citation=table.take("citation", str),
        archive=table.take("archive", str, default=""),
        archive_bytes=table.take("archive_bytes", int, default=0),
        raw_bytes=table.take("raw_bytes", int),
        records=table.take("records", int),
        min_length=table.take("min_length", int),
        min_length_reason=table.take("min_length_reason", str),
        validation_share=table.take("validation_share", float, default=0.005),
        simplify=table.take("simplify", bool),
        drop_empty_brackets=table.take("drop_empty_brackets", bool),
        quality=_quality(table.table("quality", {})),
        mirrors=tuple(_mirror(entry) for entry in table.tables("mirrors")),
        members=members,
        shapes=shapes,
    )
    table.finish()
    if "/" in manifest.archive or manifest.archive.startswith("."):
        raise table.error("archive", f"{manifest.archive!r} must be a plain file name")
    if not 0 <= manifest.validation_share < 1:
        raise table.error("validation_share", f"{manifest.validation_share} is not a share between 0 and 1")
    return manifest


class _Table:
    """One TOML table; each read removes its key, so keys left at the end are unknown."""

    def __init__(self, values: dict[str, Any], where: str, path: str) -> None:
        self.values = dict(values)
        self.where = where
        self.path = path

    def error(self, key: str, what: str) -> ManifestError:
        return ManifestError(f"{self.where}: {self.path}{key}: {what}")

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        value = self.values.pop(key, default)
        if value is None:
            raise self.error(key, "is missing")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise self.error(key, f"must be {kind.__name__}, is {type(value).__name__} {value!r}")
        if isinstance(value, int) and value < 0:
            raise self.error(key, f"must not be negative, is {value}")
        return value

    def strings(self, key: str, default: list[str] | None = None) -> tuple[str, ...]:
        values = self.take(key, list, default)
        if not all(type(value) is str for value in values):
            raise self.error(key, f"must be a list of strings, is {values!r}")
        return tuple(values)

    def tables(self, key: str) -> list[_Table]:
        entries = self.take(key, list, [])
        for index, entry in enumerate(entries):
            if type(entry) is not dict:
                raise self.error(f"{key}[{index}]", f"must be a table, is {entry!r}")
        return [_Table(entry, self.where, f"{self.path}{key}[{index}].") for index, entry in enumerate(entries)]

    def table(self, key: str, default: dict[str, Any] | None = None) -> _Table:
        return _Table(self.take(key, dict, default), self.where, f"{self.path}{key}.")

    def finish(self) -> None:
        if self.values:
            raise self.error(next(iter(self.values)), "unknown key")


def _quality(entry: _Table) -> Quality:
    quality = Quality(
        min_han=entry.take("min_han", float, default=0.0),
        trim=entry.take("trim", bool, default=False),
        adverts=entry.take("adverts", bool, default=False),
        off=entry.strings("off", []),
        mask=entry.strings("mask", []),
    )
    entry.finish()
    if not 0 <= quality.min_han <= 1:
        raise entry.error("min_han", f"{quality.min_han} is not a share between 0 and 1")
    return quality


def _mirror(entry: _Table) -> Mirror:
    mirror = Mirror(name=entry.take("name", str), files=entry.strings("files"))
    entry.finish()
    for url in mirror.files:
        if not re.match(r"(https?://|\{hub\}/)", url):
            raise entry.error("files", f"{url!r} is neither http(s):// nor {{hub}}/")
    return mirror


def _member(entry: _Table, name: str) -> Member:
    split = entry.take("split", str)
    if split not in (*SPLITS, "hash"):
        raise entry.error("split", f"{split!r} is not train, validation, test or hash")
    digest = entry.take("sha256", str) if "sha256" in entry.values else None
    if digest is not None and not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise entry.error("sha256", f"must be 64 hexadecimal digits, is {digest!r}")
    member = Member(
        pattern=entry.take("pattern", str),
        split=split,  # type: ignore[arg-type]  # checked above
        shape=entry.take("shape", str, default=name),
        bytes=entry.take("bytes", int) if "bytes" in entry.values else None,
        sha256=digest,
    )
    entry.finish()
    return member


def _shape(table: _Table) -> Shape:
    declared = table.table("fields")
    fields: dict[str, type] = {}
    for field in list(declared.values):
        kind = declared.take(field, str)
        if kind not in _FIELD_TYPES:
            raise declared.error(field, f"{kind!r} is not one of {', '.join(_FIELD_TYPES)}")
        fields[field] = _FIELD_TYPES[kind]
    document = table.table("document")
    form = document.take("form", str)
    if form not in FORMS:
        raise document.error("form", f"{form!r} is not one of {', '.join(FORMS)}")
    needed, optional = FORMS[form]
    named = (*needed, *(role for role in optional if role in document.values))
    roles = {role: document.take(role, str) for role in named}
    id_fields = document.strings("id", [])
    document.finish()
    used = [*roles.items(), *(("id", field) for field in id_fields)]
    names = [field for _, field in used]
    for key, field in used:
        if field not in fields:
            raise document.error(key, f"{field!r} is not among the fields")
        if names.count(field) > 1:
            raise document.error(key, f"field {field!r} is used twice")
        if key != "id" and fields[field] is not str:
            raise document.error(key, f"field {field!r} must be str to be text")
    return Shape(fields=fields, form=form, roles=roles, id_fields=id_fields)
