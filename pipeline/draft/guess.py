"""The form and fields of records, from a sample.

In: the records of a `sample.Sample`. Out: a `Guess`: form, fields, ids, split, limits.
Invariants: the same sample gives the same guess; a field is named only if nearly all records of the sample have it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from corpus.pipeline.clean import statistics
from corpus.pipeline.draft.sample import Kind
from corpus.pipeline.errors import SourceError
from corpus.pipeline.read.nested import role_of, text_of, value_at
from corpus.pipeline.read.splits import SPLIT_NAMES
from corpus.pipeline.text.encodings import encoding_of

_MOST = 0.9
"""Least share of the records that have a field."""
_LENGTHS = (20, 10, 4)
"""Shortest documents to choose from."""
_KEPT = 0.98
"""Least share of the sample that the shortest document keeps."""
_HAN = 0.3
"""Share of Han from which a side of a translation counts as Chinese."""

_TURNS = ("conversations", "conversation", "messages", "dialog", "dialogue", "turns", "chat")
_SYSTEM = ("system", "system_prompt")
_QUESTION = ("question", "query", "instruction", "prompt", "title", "q", "ask", "input", "问题", "提问", "问", "指令")
_DETAIL = ("input", "context", "desc", "description", "detail", "content", "passage", "描述", "补充", "输入")
_ANSWER = (
    "answer",
    "output",
    "response",
    "completion",
    "best_answer",
    "reply",
    "chosen",
    "a",
    "target",
    "回答",
    "答案",
    "答复",
    "答",
    "输出",
)
_BODY = (
    "text",
    "content",
    "body",
    "article",
    "passage",
    "sentence",
    "document",
    "raw_content",
    "正文",
    "内容",
    "文本",
    "句子",
)
_TITLE = ("title", "headline", "name", "标题", "题目")
_SOURCE = ("english", "en", "source", "src", "eng", "英文", "原文")
_TARGET = ("chinese", "zh", "target", "tgt", "zh_cn", "cn", "中文", "译文")
_IDS = ("id", "qid", "uid", "uuid", "doc_id", "docid", "_id", "idx", "index", "url", "编号", "序号")
_SPLIT = ("split", "subset", "set", "划分")


@dataclass(slots=True)
class Column:
    """A field of the sample."""

    name: str
    """Dotted where it is nested."""
    types: Counter[type] = field(default_factory=Counter)
    values: list[Any] = field(default_factory=list)

    @property
    def is_text(self) -> bool:
        """Whether it holds strings, or null."""
        return set(self.types) <= {str, type(None)} and str in self.types

    @property
    def last(self) -> str:
        """The last part of its name, in lower case."""
        return self.name.rpartition(".")[2].lower()

    @property
    def texts(self) -> list[str]:
        """The strings that are not blank."""
        return [value for value in self.values if type(value) is str and value.strip()]

    @property
    def is_label(self) -> bool:
        """Whether it names or sorts records: an id, a split, a word out of few."""
        return self.last in _IDS or self.last in _SPLIT or len(set(self.texts)) <= len(self.texts) // 20

    @property
    def mean_length(self) -> float:
        """Characters of a string on average."""
        return sum(map(len, self.texts)) / max(1, len(self.texts))


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """What a manifest says about the records."""

    form: str
    roles: Mapping[str, str]
    id_fields: tuple[str, ...] = ()
    types: Mapping[str, type] = field(default_factory=dict)
    """JSON types of the ids."""
    split_field: str = ""
    not_a_split: str = ""
    """A field that looks like a split, with values that name none."""
    other_fields: tuple[str, ...] = ()
    """Fields that are not in the text; they are kept as metadata."""
    min_length: int = 10


def guess(kind: Kind) -> Guess:
    """The form and fields of the records of one kind of file.

    Raises:
        SourceError: the records are no objects, or no field holds text.

    """
    if kind.layout == "text":
        texts = [record.decode("utf-8", "replace") for record in kind.records]
        return _limited(Guess(form="article", roles={"body": "text"}), texts)
    records = [record for record in map(_loaded, kind.records) if type(record) is dict]
    if not records:
        raise SourceError(f"{kind.names[0]}: no record of it is a JSON object", hint=_not_records(kind))
    columns = [column for column in _columns(records) if len(column.values) >= _MOST * len(records)]
    found = _form(columns)
    if kind.layout == "file":
        found = "article", {"title": "title", "body": "text"}
    if found is None:
        names = ", ".join(column.name for column in columns)
        raise SourceError(
            f"{kind.names[0]}: no field holds text; found {names or 'no field that all records have'}",
            hint="Write the manifest by hand: docs/datasets.md shows one of each form.",
        )
    form, roles = found
    ids = _ids(columns, set(roles.values()), len(records))
    split = next((each.name for each in columns if each.last in _SPLIT and _names_splits(each)), "")
    unknown = next((each for each in columns if each.last in _SPLIT and each.is_text and not split), None)
    used = {*roles.values(), split, *(each.name for each in ids)}
    guessed = Guess(
        form=form,
        roles=roles,
        id_fields=tuple(each.name for each in ids),
        types={each.name: next(iter(each.types)) for each in ids},
        split_field=split,
        not_a_split=_not_a_split(unknown) if unknown else "",
        other_fields=tuple(each.name for each in columns if each.name not in used and kind.layout != "file"),
    )
    return _limited(guessed, [_text(record, guessed) for record in records])


def _not_records(kind: Kind) -> str:
    """What to do about records that are no objects."""
    begin = b"\n".join(kind.records[:20])
    if name := encoding_of(begin):
        return f"It looks like {name}: `iconv -f {name} -t UTF-8` converts it."
    if begin.lstrip().startswith(b"{"):
        return "It looks like one object over several lines: `jq -c '.KEY[]'` makes lines of the array under a key."
    return "Each line or row must be an object with fields."


def _loaded(record: bytes) -> Any:
    try:
        return orjson.loads(record)
    except orjson.JSONDecodeError:
        return None


def _columns(records: Sequence[dict[str, Any]]) -> list[Column]:
    """The fields, in the order in which they first occur."""
    columns: dict[str, Column] = {}
    for record in records:
        for name, value in _leaves(record):
            column = columns.setdefault(name, Column(name))
            column.types[type(value)] += 1
            column.values.append(value)
    return list(columns.values())


def _leaves(record: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if type(value) is dict and value and depth < 4 and "." not in key:
            yield from _leaves(value, f"{prefix}{key}.", depth + 1)
        else:
            yield f"{prefix}{key}", value


def _form(columns: Sequence[Column]) -> tuple[str, dict[str, str]] | None:
    """The form, and a field for each of its roles."""
    if turns := next((each for each in columns if _holds_turns(each)), None):
        system = _named(columns, _SYSTEM)
        answer = _named(columns, _ANSWER) if _ends_with_question(turns) else None
        roles = {"turns": turns.name} | ({"system": system.name} if system else {})
        return "chat", roles | ({"answer": answer.name} if answer else {})
    source, target = _named(columns, _SOURCE), _named(columns, _TARGET)
    if source and target and source is not target and _han(source) < 0.1 < _HAN < _han(target):
        return "translation", {"source": source.name, "target": target.name}
    answer = _named(columns, _ANSWER)
    question = _named([each for each in columns if each is not answer], _QUESTION)
    if question and answer:
        rest = [each for each in columns if each is not question and each is not answer]
        detail = _named(rest, _DETAIL)
        roles = {"title": question.name, "answer": answer.name}
        return "question", roles | ({"detail": detail.name} if detail else {})
    texts = [each for each in columns if each.is_text and each.texts and not each.is_label]
    if not texts:
        return None
    body = _named(texts, _BODY) or max(texts, key=lambda each: each.mean_length)
    title = _named([each for each in columns if each is not body], _TITLE)
    return "article", ({"title": title.name} if title else {}) | {"body": body.name}


def _named(columns: Sequence[Column], names: Sequence[str]) -> Column | None:
    """The text field whose name comes first among `names`."""
    for name in names:
        for column in columns:
            if column.last == name and column.is_text:
                return column
    return None


def _holds_turns(column: Column) -> bool:
    """Whether a field holds lists of who says what."""
    lists = [value for value in column.values if type(value) is list and value]
    if not lists or (column.last not in _TURNS and not all(type(each) is dict for value in lists for each in value)):
        return False
    turns = [each for value in lists for each in value if type(each) is dict]
    said = [each for each in turns if role_of(each)]
    return len(said) >= _MOST * len(turns) > 0


def _ends_with_question(column: Column) -> bool:
    """Whether the last turn is mostly the user's."""
    last = [value[-1] for value in column.values if type(value) is list and value]
    asked = [each for each in last if type(each) is dict and role_of(each) == "user"]
    return len(asked) > len(last) / 2


def _ids(columns: Sequence[Column], used: set[str], records: int) -> list[Column]:
    """The field that identifies a record, if there is one."""
    for name in _IDS:
        for column in columns:
            if column.last == name and column.name not in used and len(column.types) == 1:
                is_scalar = column.types.keys() <= {str, int}
                if is_scalar and len(set(map(str, column.values))) == len(column.values) == records:
                    return [column]
    return []


def _not_a_split(column: Column) -> str:
    """A field with values that name no split, in words."""
    odd = sorted({value for value in column.texts if value.strip().lower() not in SPLIT_NAMES})
    return f"{column.name} holds {', '.join(odd[:5])}"


def _names_splits(column: Column) -> bool:
    return column.is_text and bool(column.texts) and all(value.strip().lower() in SPLIT_NAMES for value in column.texts)


def _han(column: Column) -> float:
    """Share of Han in a field."""
    return _share_of_han("".join(column.texts)[:100_000])


def _share_of_han(text: str) -> float:
    han, _, _, visible = statistics.sums(text)
    return han / max(1, visible)


def _text(record: Mapping[str, Any], guessed: Guess) -> str:
    """About the text of a document."""
    if guessed.form == "chat":
        turns = value_at(record, guessed.roles["turns"])
        said = (text_of(each) for each in turns or () if type(each) is dict)
        return "\n".join(text for text in said if type(text) is str)
    values = (value_at(record, name) for name in guessed.roles.values())
    return "\n".join(value for value in values if type(value) is str)


def _limited(guessed: Guess, texts: Sequence[str]) -> Guess:
    """The guess with the limits that keep nearly all of the sample."""
    lengths = [len(text.strip()) for text in texts if text.strip()]
    keep = (least for least in _LENGTHS if sum(length >= least for length in lengths) >= _KEPT * max(1, len(lengths)))
    return replace(guessed, min_length=next(keep, 1))
