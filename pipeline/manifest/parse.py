"""Manifests: TOML in, frozen values out.

In: a TOML file that says where a dataset comes from, what its records hold and how a record becomes a document. Out: a
frozen `Manifest`.
Invariants: an unknown key, a missing key or a wrong type raises a ManifestError that names file, line and key; nothing
in a manifest is executed, or used as a path outside the workspace.
Cost: about a millisecond.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from corpus.pipeline.errors import ManifestError
from corpus.pipeline.manifest.schema import (
    FORMATS,
    FORMS,
    MEMBER_SPLITS,
    Manifest,
    Member,
    Mirror,
    Quality,
    Shape,
    Votes,
)
from corpus.pipeline.manifest.table import Table

T = TypeVar("T")
CORPORA = ("wiki2019zh", "news2016zh", "baike2018qa", "webtext2019zh", "translation2019zh")
BUILT_IN = "demo"
DATASETS = (*CORPORA, BUILT_IN)
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
"""Names of datasets."""
LATIN_SPAN = 20
"""In users' manifests, of which the texts may be English: three to four words."""
_RESERVED = frozenset({"clusters", "hits", "keys", "evals", "shingles"})
_FIELD_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_LISTS = {"turns": list, "ranking": list}
"""Roles of fields that hold a list."""
_DEFAULTS: dict[str, tuple[type, Any]] = {
    # key: (type, default in a manifest of a user's own)
    "title": (str, ""), "summary": (str, ""), "homepage": (str, ""), "licence": (str, "not stated"),
    "citation": (str, ""), "raw_bytes": (int, 0), "records": (int, 0), "min_length": (int, 10),
    "min_length_reason": (str, "The default of manifests that state no other."), "simplify": (bool, False),
    "drop_empty_brackets": (bool, False),
}  # fmt: skip
"""Keys that the manifests in the package must have."""


def load(name: str, known: Sequence[str] = DATASETS) -> Manifest:
    """The manifest of a dataset in the package; `known` are the names that an error lists.

    Raises:
        ManifestError: no dataset has this name, or its manifest is malformed.

    """
    if name not in DATASETS:
        raise ManifestError(
            f"there is no dataset called {name!r}",
            hint=f"The datasets are: {', '.join(known)}. `corpus ingest --manifest FILE` adds one.",
        )
    resource = files("corpus.manifests") / f"{name}.toml"
    return parse(resource.read_text(encoding="utf-8"), where=f"{name}.toml")


def parse_file(path: Path) -> Manifest:
    """The manifest of a user's own dataset.

    Raises:
        ManifestError: it cannot be read, or is malformed.

    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 (byte {error.start})") from error
    return parse(text, where=str(path), own=True)


def parse(text: str, *, where: str, own: bool = False) -> Manifest:
    """Parse one manifest; `where` is its name in errors.

    Args:
        text: the TOML.
        where: the file's name.
        own: whether it is a user's own: most keys may be left out, and the name must not be that of a built-in dataset.

    Raises:
        ManifestError: it lists every problem, with line and key.

    """
    table = Table.of(text, where)
    name = table.attempt(partial(_name, table, own=own), "unnamed")
    shapes = dict[str, Shape]()
    members = tuple(_members(table, name, own=own))
    for shape in dict.fromkeys([member.shape for member in members] or [name]):
        if shape == name:
            if found := table.attempt(partial(_shape, table, own=own), None):
                shapes[shape] = found
        elif shape in CORPORA:
            shapes[shape] = load(shape).shapes[shape]
        else:
            error = table.error("members", f"shape {shape!r} is neither this dataset nor one of the corpora")
            table.problems.append(error.message)
    values = {
        key: table.attempt(partial(table.take, key, kind, default if own else None), default)
        for key, (kind, default) in _DEFAULTS.items()
    }
    values |= {
        "archive": table.attempt(partial(_archive, table), ""),
        "archive_bytes": table.attempt(partial(table.take, "archive_bytes", int, 0), 0),
        "validation_share": table.attempt(partial(_share, table, "validation_share", 0.005), 0.0),
        "quality": table.attempt(
            partial(_quality, table, own=own), Quality(min_han=0, trim=False, adverts=False, off=(), mask=())
        ),
        "mirrors": tuple(_each(table, "mirrors", _mirror)),
        "source": table.attempt(partial(table.take, "source", str, ""), "") if own else "",
    }
    table.finish()
    if table.problems:
        raise ManifestError("\n".join(table.problems))
    values["title"] = values["title"] or name
    return Manifest(name=name, members=members, shapes=shapes, **values)


def _name(table: Table, *, own: bool) -> str:
    name = table.take("name", str)
    if not NAME.fullmatch(name):
        raise table.error("name", f"{name!r} is not a dataset name (lower-case letters, digits, - and _)")
    if own and name in _RESERVED:
        raise table.error("name", f"{name!r} is a name that the workspace uses itself; choose another")
    if own and name in DATASETS:
        raise table.error("name", f"{name!r} is a built-in dataset; choose another name")
    return name


def _each(table: Table, key: str, read: Callable[[Table], T]) -> Iterator[T]:
    """What `read` makes of each table of a list; problems are kept."""
    entries: list[Table] = table.attempt(partial(table.tables, key), [])
    for entry in entries:
        found = table.attempt(partial(read, entry), None)
        entry.finish()
        if found is not None:
            yield found


def _members(table: Table, name: str, *, own: bool) -> Iterator[Member]:
    table.known.append("members")
    if own and "members" not in table.values:
        yield Member(pattern="**", split="name", shape=name, bytes=None, sha256=None)
        return
    if not table.values.get("members"):
        table.problems.append(table.error("members", "at least one is needed").message)
    yield from _each(table, "members", partial(_member, name=name))


def _archive(table: Table) -> str:
    archive = table.take("archive", str, "")
    if "/" in archive or archive.startswith("."):
        raise table.error("archive", f"{archive!r} must be a plain file name")
    return archive


def _share(table: Table, key: str, default: float) -> float:
    share = table.take(key, float, default)
    if not 0 <= share < 1:
        raise table.error(key, f"{share} is not a share between 0 and 1")
    return share


def _quality(table: Table, *, own: bool) -> Quality:
    entry = table.table("quality", {})
    quality = Quality(
        min_han=entry.take("min_han", float, 0.0),
        trim=entry.take("trim", bool, default=False),
        adverts=entry.take("adverts", bool, default=False),
        off=entry.strings("off", []),
        mask=entry.strings("mask", []),
        latin_span=entry.take("latin_span", int, LATIN_SPAN) if own else 0,
    )
    entry.finish()
    if not 0 <= quality.min_han <= 1:
        raise entry.error("min_han", f"{quality.min_han} is not a share between 0 and 1")
    return quality


def _mirror(entry: Table) -> Mirror:
    mirror = Mirror(name=entry.take("name", str), files=entry.strings("files"))
    for url in mirror.files:
        if not re.match(r"(https?://|\{hub\}/)", url):
            raise entry.error("files", f"{url!r} is neither http(s):// nor {{hub}}/")
    return mirror


def _member(entry: Table, name: str) -> Member:
    return Member(
        pattern=entry.attempt(partial(entry.take, "pattern", str), ""),
        split=entry.attempt(partial(entry.one_of, "split", MEMBER_SPLITS), "hash"),
        shape=entry.attempt(partial(entry.take, "shape", str, name), name),
        bytes=entry.attempt(partial(entry.take, "bytes", int), 0) if "bytes" in entry.values else None,
        sha256=entry.attempt(partial(_digest, entry), None) if "sha256" in entry.values else None,
        format=entry.attempt(partial(entry.one_of, "format", FORMATS, ""), ""),
    )


def _digest(entry: Table) -> str:
    digest = entry.take("sha256", str)
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise entry.error("sha256", f"must be 64 hexadecimal digits, is {digest!r}")
    return digest


def _shape(table: Table, *, own: bool) -> Shape:
    fields = _fields(table, required=not own)
    document = table.table("document")
    form = document.take("form", str)
    if form not in FORMS:
        raise document.error("form", f"{form!r} is not one of {', '.join(FORMS)}")
    needed, optional = FORMS[form]
    missing = len(table.problems)
    roles = {role: document.attempt(partial(document.take, role, str), "") for role in needed}
    roles |= {role: document.take(role, str) for role in optional if role in document.values}
    document.known += optional
    id_fields = document.strings("id", [])
    split_field = document.take("split", str, "") if own else ""
    votes = document.attempt(partial(_votes, document, form, roles), None) if "votes" in document.values else None
    document.finish()
    if form == "ranking":
        _check_ranking(document, roles)
    if own:  # the fields that are not declared
        fields |= {field: _LISTS.get(role, str) for role, field in roles.items() if field not in fields}
        fields |= {field: object for field in id_fields if field not in fields}
        fields |= {split_field: str} if split_field else {}
    if len(table.problems) == missing:
        _check_roles(document, roles, id_fields, fields)
    return Shape(fields=fields, form=form, roles=roles, id_fields=id_fields, split_field=split_field, votes=votes)


def _votes(document: Table, form: str, roles: Mapping[str, str]) -> Votes:
    if form != "question":
        raise document.error("votes", f"goes with the form question, not {form}")
    entry = document.table("votes")
    question = entry.take("question", str, "")
    question = "" if question == roles.get("title") else question
    found = Votes(question=question, score=entry.take("score", str), time=entry.take("time", str, ""))
    entry.finish()
    for key in (key for key in ("question", "score", "time") if getattr(found, key) in roles.values()):
        raise entry.error(key, f"field {getattr(found, key)!r} is text of the document, which votes do not read")
    return found


def _check_ranking(document: Table, roles: Mapping[str, str]) -> None:
    """Refuse anything but one prompt at most, and either a list of answers or a better and a worse one."""
    if ("ranking" in roles) == ("chosen" in roles) or ("chosen" in roles) != ("rejected" in roles):
        raise document.error("form", "ranking needs `ranking`, or both `chosen` and `rejected`")
    if "prompt" in roles and "turns" in roles:
        raise document.error("turns", "a ranking has a `prompt` or `turns`, not both")


def _check_roles(
    document: Table, roles: Mapping[str, str], id_fields: Sequence[str], fields: Mapping[str, type]
) -> None:
    """Refuse a field that is not declared, stands for two things, or is no text."""
    used = [*roles.items(), *(("id", field) for field in id_fields)]
    names = [field for _, field in used]
    for key, field in used:
        if field not in fields:
            raise document.error(key, f"{field!r} is not among the fields")
        if names.count(field) > 1:
            raise document.error(key, f"field {field!r} is used twice")
        if key != "id" and key not in _LISTS and fields[field] is not str:
            raise document.error(key, f"field {field!r} must be str to be text")


def _fields(table: Table, *, required: bool) -> dict[str, type]:
    """Declared fields with their types."""
    declared = table.table("fields", None if required else {})
    fields: dict[str, type] = {}
    for field in list(declared.values):
        kind = declared.take(field, str)
        if kind not in _FIELD_TYPES:
            raise declared.error(field, f"{kind!r} is not one of {', '.join(_FIELD_TYPES)}")
        fields[field] = _FIELD_TYPES[kind]
    return fields
