"""Parsing: from the bytes of a record to the parts of a document.

In: the bytes of records, and their shape in the manifest. Out: their fields, or the reason for rejecting them.
Invariants: every record comes out once, as fields or with a reason; fields that are not in the text are kept as `meta`.
Cost: one `orjson` call and one tuple comparison a record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from operator import itemgetter

import orjson

from corpus.pipeline import kernels
from corpus.pipeline.manifest import Shape
from corpus.pipeline.read.nested import nested_parser
from corpus.pipeline.read.spans import Parsed, Reject
from corpus.pipeline.templates import parts_of

SHAPE_REASONS = frozenset({"malformed_json", "not_utf8", "wrong_type", "missing_field", "duplicate_key", "too_large"})
"""Reasons that mean a record is not of the manifest's shape, independent of its text."""
_BLANK_BEFORE_COLON = re.compile(rb'"[ \t\r\n]+:')


def parser(shape: Shape) -> Callable[[list[tuple[int, bytes]]], Parsed]:
    """A function that parses blocks of (byte offset, record) of one shape."""
    return _flat_parser(shape) if shape.is_flat else nested_parser(shape)


def _flat_parser(shape: Shape) -> Callable[[list[tuple[int, bytes]]], Parsed]:
    """The parser of a shape whose fields are all at the top, with help of the kernel."""
    parts = parts_of(shape)
    optional = {shape.roles.get(role) for role in (("detail",) if shape.form == "question" else ("title", "detail"))}
    strict = tuple(dict.fromkeys((*(part for part in parts if part not in optional), *shape.id_fields)))
    values_of = itemgetter(*strict)  # one value, not a tuple, for one name
    get = values_of if len(strict) > 1 else lambda record: (values_of(record),)
    types = tuple(shape.fields[name] for name in strict)
    defaults, strings = [None] * len(parts), [str] * len(parts)

    def one(offset: int, raw: bytes, parsed: Parsed) -> None:
        try:
            record = orjson.loads(raw)
            values = get(record)
        except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
            values = None
        if values is None or tuple(map(type, values)) != types or type(record) is not dict:
            parsed.rejects.append(_diagnose(offset, raw, shape, strict))
            return
        twice = _repeated(raw, shape) if _may_repeat(raw, len(record)) else None
        if twice:
            parsed.rejects.append(Reject(offset, "duplicate_key", f"{twice!r} stands more than once", raw))
            return
        texts = list(map(record.pop, parts, defaults))
        if list(map(type, texts)) != strings:
            odd = next((index for index, text in enumerate(texts) if text is not None and type(text) is not str), None)
            if odd is not None:
                detail = f"{parts[odd]!r} is {type(texts[odd]).__name__}, not str"
                parsed.rejects.append(Reject(offset, "wrong_type", detail, raw))
                return
            texts = ["" if text is None else text for text in texts]
        try:
            meta = orjson.dumps(record).decode()
        except TypeError as error:  # orjson reads deeper nesting than it writes
            parsed.rejects.append(Reject(offset, "malformed_json", str(error), raw))
            return
        parsed.offsets.append(offset)
        parsed.names.append("-".join([str(record[name]) for name in shape.id_fields]))
        parsed.texts.extend(texts)
        parsed.metas.append(meta)
        parsed.raws.append(raw)

    def parse(records: list[tuple[int, bytes]]) -> Parsed:
        parsed = Parsed()
        if not kernels.compiled:
            for offset, raw in records:
                one(offset, raw, parsed)
            return parsed
        fields = (orjson.loads, orjson.dumps, strict, types, parts, shape.id_fields)
        lists = (parsed.offsets, parsed.names, parsed.texts, parsed.metas, parsed.raws)
        at = 0
        while (at := kernels.compiled.parse(records, at, fields, lists)) < len(records):
            one(*records[at], parsed)  # the kernel leaves unusual records to Python
            at += 1
        return parsed

    return parse


def _diagnose(offset: int, raw: bytes, shape: Shape, strict: Sequence[str]) -> Reject:
    """The reason why a record is not of the shape; called only for those that are not."""
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if error.msg.startswith("Not enough memory"):  # orjson raises the same exception as for malformed text
            raise MemoryError(str(error)) from error
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as broken:
            return Reject(offset, "not_utf8", f"byte {broken.start}: {broken.reason}", raw)
        return Reject(offset, "malformed_json", str(error), raw)
    if type(record) is not dict:
        return Reject(offset, "wrong_type", f"the record is {type(record).__name__}, not an object", raw)
    for name in strict:
        if name not in record:
            return Reject(
                offset, "missing_field", f"{name!r} is missing; found {', '.join(map(repr, record)) or 'none'}", raw
            )
        if type(record[name]) is not shape.fields[name]:
            kinds = f"{type(record[name]).__name__}, not {shape.fields[name].__name__}"
            return Reject(offset, "wrong_type", f"{name!r} is {kinds}", raw)
    raise AssertionError(name)


def _may_repeat(raw: bytes, keys: int) -> bool:
    """Whether the bytes may hold more keys than the parsed record: each ends with an unescaped quote and a colon, with
    or without blanks in between.

    Only the kernel decides whether two or more backslashes escape the quote.
    """
    if kernels.compiled:
        return kernels.compiled.keys(raw) > keys
    if raw.count(b":") <= keys:
        return False
    ends = raw.count(b'":')
    if ends > keys:
        ends += raw.count(b'\\\\":') - raw.count(b'\\":')
    return ends > keys or _BLANK_BEFORE_COLON.search(raw) is not None


def _repeated(raw: bytes, shape: Shape) -> str | None:
    """The first field whose key occurs more than once in the record; nested objects are not checked."""
    keys: list[str] = []

    def outermost(pairs: list[tuple[str, object]]) -> None:
        keys[:] = [key for key, _ in pairs]  # the outermost object closes last

    try:
        json.loads(raw, object_pairs_hook=outermost)
    except (ValueError, RecursionError):
        return None
    return next((name for name in shape.fields if keys.count(name) > 1), None)
