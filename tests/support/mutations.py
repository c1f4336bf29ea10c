"""Seeded mutations of records, files and manifests: each nearly of the right shape."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from typing import Any

TITLE, TEXT = "怎样洗杯子？", "先用温水泡一会儿，再擦干。"
RECORDS: dict[str, dict[str, Any]] = {
    "wiki2019zh": {"id": "53", "url": "https://zh.wikipedia.org/wiki?curid=53", "title": TITLE, "text": TEXT},
    "news2016zh": {
        "news_id": "610130831",
        "keywords": "杯子，温水",
        "title": TITLE,
        "desc": "说的是杯子",
        "source": "日报",
        "time": "03-21 12:00",
        "content": TEXT,
    },
    "baike2018qa": {
        "qid": "qid_5982723620932473219",
        "category": "生活-家务",
        "title": TITLE,
        "desc": "",
        "answer": TEXT,
    },
    "webtext2019zh": {
        "qid": 65618973,
        "title": TITLE,
        "desc": "有茶垢",
        "topic": "生活",
        "star": 3,
        "content": TEXT,
        "answer_id": 301,
        "answerer_tags": "",
    },
    "translation2019zh": {"english": 'The "cup": clean.', "chinese": "杯子：干净。"},
}
TOKENS = (
    b'"', b'":', b'" :', b'"\t:', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\\\", b'\\"', b"\\u", b"\\ud800",
    b"\\udc00\\ud800", b"\\u0000", b"\\u0022", b"\0", b"\r", b"\r\n", b"\n", b"\n\n", b"\xef\xbb\xbf", b"\xff",
    b"\xc3", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"NaN", b"Infinity", b"null", b"true", b"-",
    b"1e999", b"-0.0", b"18446744073709551616", b"1" * 400, b" ", b"\x0c", b"{}", b"[]", b'""', b"//", b"\xa3\xac",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 2**64, 1.5, -0.0, 1e308, "", "字", "\0", "\n", '"', '\\":', [], {}, [1, [2]],
    {"a": {"b": 1}}, {"title": "x"}, "x" * 5000,
)  # fmt: skip


def shape_change(chance: random.Random, record: dict[str, Any]) -> bytes:
    """Another record of nearly this shape: a type, a field or a key is not what it was."""
    record = dict(record)
    name = chance.choice(list(record))
    kind = chance.randrange(7)
    if kind == 0:
        record[name] = chance.choice(VALUES)
    elif kind == 1:
        del record[name]
    elif kind == 2:
        record[chance.choice(("extra", "", "标题", name.upper(), name + " "))] = chance.choice(VALUES)
    elif kind == 3:
        items = list(record.items())
        chance.shuffle(items)
        record = dict(items)
    raw = json.dumps(record, ensure_ascii=chance.random() < 0.3).encode()
    if kind == 4:  # a key twice, in one of its spellings
        spelled = chance.choice(
            (
                f'"{name}":',
                f'"{name}" :',
                f'"{name}"\t: ',
                f'"\\u{ord(name[0]):04x}{name[1:]}":',
                f'"{name[0].upper()}":',
            )
        )
        value = json.dumps(chance.choice(VALUES))
        raw = (
            b"{" + f"{spelled}{value},".encode() + raw[1:]
            if chance.random() < 0.5
            else raw[:-1] + f",{spelled}{value}}}".encode()
        )
    elif kind == 5:
        depth = chance.choice((3, 100, 254, 255, 300, 1023, 1025, 3000))
        opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}")))
        inner = opening * depth + b"1" + closing * (depth if chance.random() < 0.8 else chance.randrange(depth))
        raw = chance.choice((raw[:-1] + b',"deep":' + inner + b"}", inner))
    elif kind == 6:
        encoding = chance.choice(("gb18030", "utf-16", "utf-16-le", "utf-32", "utf-8-sig", "big5"))
        raw = json.dumps(record, ensure_ascii=False).encode(encoding, "replace")
    return raw


def byte_change(chance: random.Random, raw: bytes, other: bytes) -> bytes:
    """The same bytes with a bit flipped, a part cut out, doubled, put in, or taken from another."""
    place = chance.randrange(len(raw) + 1)
    kind = chance.randrange(7)
    before, after = raw[:place], raw[place:]
    if kind == 0:
        after = bytes([after[0] ^ 1 << chance.randrange(8)]) + after[1:] if after else after
    elif kind == 1:
        before, after = chance.choice(((before, b""), (b"", after)))
    elif kind == 2:
        after = other[chance.randrange(len(other) + 1) :]
    elif kind == 3:
        after = after[chance.randrange(1, 20) :]
    elif kind == 4:
        after = raw[max(0, place - chance.randrange(1, 60)) :]
    elif kind == 5:
        after = chance.randbytes(chance.randrange(1, 6)) + after
    else:
        after = chance.choice(TOKENS) + after
    return before + after


def mutated_records(chance: random.Random, dataset: str) -> Iterator[bytes]:
    record = RECORDS[dataset]
    others = [json.dumps(other, ensure_ascii=False).encode() for other in RECORDS.values()]
    whole = json.dumps(record, ensure_ascii=False).encode()
    while True:
        raw = shape_change(chance, record) if chance.random() < 0.6 else whole
        for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
            raw = byte_change(chance, raw, chance.choice(others))
        yield raw


def mutated_file(chance: random.Random) -> bytes:
    whole = [json.dumps(record, ensure_ascii=False).encode() for record in RECORDS.values()]
    end = chance.choice((b"\n", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n"))
    data = end.join(chance.choice(whole)[: chance.choice((0, 3, 30, 500))] for _ in range(chance.randrange(9)))
    for _ in range(chance.randrange(4)):
        data = byte_change(chance, data, whole[0])
    return data


def mutated_items(chance: random.Random) -> tuple[str, bytes]:
    """A file of texts, in a format and under an ending that may not be its own."""
    rows = [{"title": TITLE, "text": TEXT}, {"text": chance.choice(VALUES)}, {"题": [TEXT, {"文": TITLE}]}, TEXT, 1, []]
    chosen = chance.sample(rows, chance.randrange(len(rows)))
    written = {
        ".jsonl": "\n".join(json.dumps(row, ensure_ascii=chance.random() < 0.3) for row in chosen),
        ".json": json.dumps(chosen),
        ".csv": f'title,text\n{TITLE},"{TEXT}"\n{TEXT}\n',
        ".txt": f"{TITLE}\n\n{TEXT}\n",
    }
    suffix = chance.choice(list(written))
    data = written[suffix].encode()
    for _ in range(chance.choice((0, 1, 1, 3))):
        data = byte_change(chance, data, TEXT.encode())
    packed = chance.random()
    if packed < 0.2:
        data = gzip.compress(data, 1, mtime=0)
        data = byte_change(chance, data, data) if chance.random() < 0.5 else data
    return (suffix if chance.random() < 0.8 else chance.choice(list(written))) + (".gz" if packed < 0.25 else ""), data


def mutated_model(chance: random.Random, whole: bytes, head: int) -> bytes:
    """A file of which the first `head` bytes, the end, or values of the JSON in its head are not what they were."""
    kind = chance.randrange(4)
    if kind == 0:
        return byte_change(chance, whole[:head], whole[:head]) + whole[head:]
    if kind == 1:
        return whole[: chance.randrange(len(whole))] + chance.randbytes(chance.randrange(9))
    about = json.loads(whole[8:head])
    for name in list(about["__metadata__"]):
        inner = json.loads(about["__metadata__"][name])
        place = chance.choice((inner, inner["facts"], inner["facts"]["held_back"]))
        key = chance.choice(list(place))
        value = chance.choice((*VALUES, "\ud800", float("nan"), float("inf"), 10**400, [TITLE], ["\ud800"], -1))
        place[key] = value if kind == 2 else {**place}
        about["__metadata__"][name] = json.dumps(inner)
    made = json.dumps(about).encode()
    made += b" " * (-len(made) % 8)
    return len(made).to_bytes(8, "little") + made + whole[head:]


def mutated_manifest(chance: random.Random, texts: list[str]) -> str:
    """A manifest with lines, values or characters that are not what they were."""
    text = chance.choice(texts)
    for _ in range(chance.choice((1, 1, 2, 5))):
        rows = text.split("\n")
        place = chance.randrange(len(rows))
        kind = chance.randrange(10)
        if kind == 0:
            rows[place : place + 1] = []
        elif kind == 9 and "[document]" in rows:  # another field for a part of the document
            place = min(len(rows) - 1, rows.index("[document]") + chance.randrange(2, 6))
            field = chance.choice(
                ("title", "desc", "answer", "content", "text", "qid", "id", "english", "star", "nothing")
            )
            value = f'["{field}"]' if rows[place].startswith("id") else f'"{field}"'
            rows[place] = f"{rows[place].partition('=')[0]}= {value}"
        elif kind == 1:
            rows.insert(chance.randrange(len(rows)), rows[place])
        elif kind == 2:
            rows.insert(place, chance.choice(chance.choice(texts).split("\n")))
        elif kind == 3:
            value = chance.choice(
                (
                    "nan", "-inf", "1e400", "0x10", "1_0", "1" * 5000, "true", "''", "[]", "{}",
                    "1979-05-27T07:32:00Z", "1979-99-99", "[1, 'a']",
                    "[[" * chance.choice((1, 200, 2000)), "{a = " * 900, '"\\uD800"',
                    '"\\U0010FFFF"',
                    '"../x"', '"/etc/passwd"', '"title"', '"qid"', '"answer"', '["title"]', '["answer", "qid"]', '"*"',
                    '"??"',
                    '"[a"', '"hash"', '"news2016zh"', '"demo"', '"int"', '"article"', '"translation"', "-1", "9" * 19,
                )
            )  # fmt: skip
            rows[place] = f"{rows[place].partition('=')[0]}= {value}"
        elif kind == 4:
            key = chance.choice(("x", "title", "id", "form", '"a.b"', "fields", "mirrors"))
            rows[place] = f"{key} = {chance.choice(rows)}"
        elif kind == 5:
            table = chance.choice(("[fields]", "[[members]]", "[document]", "[a.b]", "[[mirrors]]", "[name]"))
            rows.insert(place, table)
        else:
            line = rows[place]
            at = chance.randrange(len(line) + 1)
            token = chance.choice(
                ('"', "'", '"""', "=", "[", "]", "\0", "\r", "#", "\\", "字", "\u2028", "{", ".", "\ufeff")
            )
            rows[place] = line[:at] + token + line[at + chance.randrange(3) :]
        text = "\n".join(rows)
    return text
