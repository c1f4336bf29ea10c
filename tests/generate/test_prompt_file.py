"""Files of prompts and examples: what is read from them, and that every bad line is named with its number."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from corpus.generate import prompt_file as module
from corpus.generate.prompt_file import Prompt, PromptFile, questions, shots
from corpus.pipeline.errors import PromptError


def prompt(line: int, text: str, **rest: object) -> Prompt:
    return Prompt(line=line, text=text, rest=rest)


@pytest.mark.parametrize(
    ("name", "data", "read"),
    [
        ("p.txt", "天晴了\n下雨了", [prompt(1, "天晴了"), prompt(2, "下雨了")]),
        ("p.txt", "\ufeff天晴了\r\n\r\n \t\n 下雨了 \r\n", [prompt(1, "天晴了"), prompt(4, " 下雨了 ")]),
        ("p.txt", '"天晴了"\n{"prompt": "雨"}', [prompt(1, '"天晴了"'), prompt(2, '{"prompt": "雨"}')]),
        ("p", '"天晴了"\n', [prompt(1, "天晴了")]),
        ("p", '“天晴了”\n"雨"\n', [prompt(1, "“天晴了”"), prompt(2, '"雨"')]),
        ("p", "[1, 2]\n12\nnull\n", [prompt(1, "[1, 2]"), prompt(2, "12"), prompt(3, "null")]),
        ("p", '{"prompt": "雨"\n', [prompt(1, '{"prompt": "雨"')]),
        ("p.jsonl", '"天\\n晴"\n\n{"id": [1, null], "prompt": ""}', [prompt(1, "天\n晴"), prompt(3, "", id=[1, None])]),
        ("p.JSON", f'{{"prompt": "雨", "n": {10**30}}}\n', [prompt(1, "雨", n=10**30)]),
        ("p.jsonl", '\ufeff{"prompt": "\\ud83d\\ude42"}', [prompt(1, "🙂")]),
    ],
)  # fmt: skip
def test_what_is_read(tmp_path: Path, name: str, data: str, read: list[Prompt]) -> None:
    path = tmp_path / name
    path.write_bytes(data.encode())
    file = PromptFile(path)
    file.check()
    assert list(file) == read
    assert file.count == len(read)
    if name == "p":
        stream = PromptFile(io.BytesIO(data.encode()))
        stream.check()
        assert (list(stream), stream.count) == (read, None)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("p.txt", b"", "holds no prompts"),
        ("p.jsonl", b"\n \r\n\n", "holds no prompts"),
        ("p.txt", "天晴了\n下雨了".encode("gb18030"), "line 1: it is not UTF-8"),
        ("p.txt", "好\n".encode() + b"\xe5\xa4\n", r"line 2: it is not UTF-8 \(byte 0"),
        ("p.txt", "雨".encode("utf-16"), "line 1: it is not UTF-8"),
        ("p.jsonl", b'"a"\nb\n', "line 2: it is not JSON"),
        ("p.jsonl", b'["a"]\n', 'line 1: it has no "prompt"'),
        ("p.jsonl", b'[\n"a"\n]\n', "line 1: it is not JSON"),
        ("p.jsonl", b'{"prompt": 3}\n', 'line 1: it has no "prompt"'),
        ("p.jsonl", b'{"text": "a"}\n', 'line 1: it has no "prompt"'),
        ("p.jsonl", b'{"prompt": "a", "text": "b"}\n', "line 1: 'text' is a key of the result"),
        ("p.jsonl", b'{"prompt": "a", "n": NaN}\n', "line 1: it is not JSON: NaN"),
        ("p.jsonl", b'"\\ud83d"\n', "line 1: it holds half a character"),
        ("p.jsonl", b'{"prompt": "a", "\\udc00": 1}\n', "line 1: it holds half a character"),
        ("p.jsonl", b"[" * 100_000 + b"\n", "line 1: it is not JSON"),
        ("p.jsonl", b"9" * 5000 + b"\n", "line 1: it is not JSON"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(PromptError, match=says) as caught:
        PromptFile(path).check()
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("encoding", ["GB18030", "UTF-16"])
def test_another_encoding_is_named_with_what_converts_it(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes("天晴了\n下雨了".encode(encoding))
    with pytest.raises(PromptError) as caught:
        PromptFile(path).check()
    assert caught.value.hint == f"Convert it with `iconv -f {encoding} -t UTF-8`."


def test_places_that_hold_no_file_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PromptError, match=str(path)):
            PromptFile(path).check()
        with pytest.raises(PromptError, match=str(path)):
            shots(path)


def test_an_empty_prompt_is_refused_where_something_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('"雨"\n" \\n"\n')
    PromptFile(path).check()
    with pytest.raises(PromptError, match="line 2: its prompt is empty"):
        PromptFile(path, blank=False).check()


def test_a_line_of_a_megabyte_is_read_and_one_beyond_the_limit_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.txt"
    path.write_text("河" * 400_000 + "\n好\n", encoding="utf-8")
    assert [len(found.text) for found in PromptFile(path)] == [400_000, 1]
    monkeypatch.setattr(module, "LINE_BYTES", 1_200_000)
    with pytest.raises(PromptError, match="line 1: it is longer than 1 MiB"):
        list(PromptFile(path))


def test_lines_are_read_one_at_a_time() -> None:
    stream = io.BytesIO(b"a\n" * 1000)
    found = iter(PromptFile(stream))
    next(found)
    assert stream.tell() <= 4


@pytest.mark.parametrize(
    ("name", "data", "read"),
    [
        ("s.jsonl", '{"prompt": " 雪？", "answer": "光。\\n散。 "}\n', [("雪？", "光。\n散。")]),
        ("s.txt", "雪？\n光。\n散。\n\n\n冰？\r\n也是。\n", [("雪？", "光。\n散。"), ("冰？", "也是。")]),
        ("s", '\n{"prompt": "a", "answer": "b", "more": 1}', [("a", "b")]),
    ],
)  # fmt: skip
def test_examples(tmp_path: Path, name: str, data: str, read: list[tuple[str, str]]) -> None:
    path = tmp_path / name
    path.write_text(data, encoding="utf-8")
    assert shots(path) == read


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("s.txt", "", "holds no examples"),
        ("s.txt", "问？\n答。\n\n问？\n", "line 4: it is a question without an answer"),
        ("s.jsonl", '{"prompt": "a"}\n', 'line 1: it lacks "prompt" or "answer"'),
        ("s.jsonl", '{"prompt": "a", "answer": " "}\n', 'line 1: it lacks "prompt" or "answer"'),
        ("s.jsonl", '"a"\n', 'line 1: it lacks "prompt" or "answer"'),
    ],
)
def test_bad_examples_are_named(tmp_path: Path, name: str, data: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(data, encoding="utf-8")
    with pytest.raises(PromptError, match=says):
        shots(path)


def test_examples_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    with path.open("wb") as file:
        file.truncate(module.LINE_BYTES + 1)
    with pytest.raises(PromptError, match="longer than any model's context"):
        shots(path)


def test_a_pipe_asks_a_question_a_line() -> None:
    assert list(questions(io.BytesIO("问？ \r\n\n再问？".encode()))) == ["问？", "再问？"]
    with pytest.raises(PromptError, match="standard input, line 2"):
        list(questions(io.BytesIO(b"a\n\xff\n")))


def test_result_keys_are_those_of_a_result() -> None:
    from corpus.generate.bulk import Result
    from corpus.generate.config import Finish

    finish = Finish(reason="stop", prompt_tokens=3, tokens=4, logprob=-1.23456789, seconds=1.0)
    result = Result(prompt=prompt(1, "问", id=7), sample=2, text='答\n"', finish=finish, seed=9)
    line = result.to_line()
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "prompt": "问", "text": '答\n"', "sample": 2, "prompt_tokens": 3, "tokens": 4, "finish": "stop",
        "logprob": -1.2346, "seed": 9, "id": 7,
    }  # fmt: skip
    assert (*module.RESULT_KEYS, "id") == tuple(json.loads(line))
