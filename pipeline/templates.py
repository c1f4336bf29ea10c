"""Templates: compose a document from its parts as article, question, translation or conversation; and their prompts.

In: cleaned parts of one record. Out: one text, with the length of its question or source side.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from corpus.pipeline.manifest import Shape
from corpus.pipeline.manifest.schema import NESTED

TRANSLATE = "translate english to chinese, "


def parts_of(shape: Shape) -> tuple[str, ...]:
    """The fields of the text, in the order of their template; none for `chat` and `ranking`, whose parts vary."""
    order = {
        "article": ("title", "body"),
        "question": ("title", "detail", "answer"),
        "translation": ("source", "target"),
        "chat": (),
        "ranking": (),
    }
    return tuple(shape.roles[role] for role in order[shape.form] if role in shape.roles)


def composer(shape: Shape) -> Callable[[Sequence[str]], tuple[str, int]]:
    """A function from the cleaned parts of one record to (text, prompt_length)."""
    if shape.form in NESTED:
        return conversation
    if shape.form == "translation":
        return _translation
    if shape.form == "question":
        return _question if "detail" in shape.roles else lambda parts: _question((parts[0], "", parts[1]))
    return _article if "title" in shape.roles else lambda parts: _article(("", parts[0]))


def question_prompt(question: str) -> str:
    r"""The beginning of a question document; the answer follows.

    >>> question_prompt("天为什么蓝？")
    '天为什么蓝？\n'
    """
    return f"{question}\n"


def translation_prompt(english: str) -> str:
    """The beginning of a translation document; the Chinese follows.

    The zero-shot form of GPT-2 (Radford et al., 2019): instruction, source, target on one line.

    >>> translation_prompt("It rains.")
    'translate english to chinese, It rains., '
    """
    return f"{TRANSLATE}{_on_one_line(english)}, "


def turn(text: str, prompt_length: int) -> tuple[str, str] | None:
    r"""Question and answer of a document without the blanks between them, or None if one is missing.

    >>> turn("天为什么蓝？\n因为散射。", 7)
    ('天为什么蓝？', '因为散射。')
    >>> turn("雨停了。", 0)
    """
    question, answer = text[:prompt_length].rstrip(), text[prompt_length:].lstrip()
    return (question, answer) if question and answer else None


def turns(text: str, starts: Sequence[int]) -> list[str] | None:
    r"""The turns of a conversation whose later turns begin at `starts`; None unless each question has an answer.

    >>> turns("天为什么蓝？\n因为散射。\n夜里呢？\n没有光。", [7, 13, 18])
    ['天为什么蓝？', '因为散射。', '夜里呢？', '没有光。']
    """
    edges = [0, *starts, len(text)]
    found = [text[begin:end].strip() for begin, end in itertools.pairwise(edges)]
    return found if len(found) > 1 and len(found) % 2 == 0 and all(found) else None


def conversation(turns: Sequence[str]) -> tuple[str, int]:
    r"""The text of a conversation, a line or more a turn, and the length of its first question.

    >>> conversation(["天为什么蓝？", "因为散射。"])
    ('天为什么蓝？\n因为散射。', 7)
    """
    return "\n".join(turns), len(turns[0]) + 1 if turns else 0


def ranking(parts: Sequence[str], prompts: int) -> tuple[str, int]:
    r"""The text of a ranking, the first `prompts` parts being its prompt, and the length of that.

    >>> ranking(["天为什么蓝？", "因为散射。", "不知道。"], 1)
    ('天为什么蓝？\n因为散射。\n不知道。', 7)
    >>> ranking(["因为散射。", "不知道。"], 0)
    ('因为散射。\n不知道。', 0)
    """
    return "\n".join(parts), sum(len(part) + 1 for part in parts[:prompts])


def ranked(text: str, starts: Sequence[int], prompt_length: int) -> tuple[list[str], list[str]]:
    r"""The turns of the prompt, and the answers, best first, of a ranking whose later parts begin at `starts`.

    >>> ranked("天为什么蓝？\n因为散射。\n不知道。", [7, 13], 7)
    (['天为什么蓝？'], ['因为散射。', '不知道。'])
    """
    edges = [0, *starts, len(text)]
    prompt, answers = list[str](), list[str]()
    for begin, end in itertools.pairwise(edges):
        (prompt if begin < prompt_length else answers).append(text[begin:end].strip())
    return prompt, answers


def whole_turns(turns: Sequence[str]) -> Sequence[str]:
    """The questions with their answers before the first turn without text.

    >>> whole_turns(["问", "答", "问", ""])
    ['问', '答']
    """
    empty = next((at for at, turn in enumerate(turns) if not turn), len(turns))
    return turns[: empty - empty % 2]


def turn_starts(turns: Sequence[str]) -> list[int]:
    """Where each turn of a conversation begins in its text, but for the first.

    >>> turn_starts(["天为什么蓝？", "因为散射。", "夜里呢？", "没有光。"])
    [7, 13, 18]
    """
    return list(itertools.accumulate(len(turn) + 1 for turn in turns[:-1]))


def _article(parts: Sequence[str]) -> tuple[str, int]:
    """Title, blank line, body; a title that the body repeats is not added."""
    title, body = parts
    if not title or body == title or body.startswith(title + "\n"):
        return body, 0
    return (f"{title}\n\n{body}" if body else ""), 0


def _question(parts: Sequence[str]) -> tuple[str, int]:
    """Title, the detail if it adds to the title, the answer."""
    title, detail, answer = parts
    if detail.startswith(title):
        question = detail
    elif not detail or detail in title:
        question = title
    else:
        question = f"{title}\n{detail}"
    if not question:
        return answer, 0
    if not answer:
        return question, len(question)
    prompt = question_prompt(question)
    return prompt + answer, len(prompt)


def _translation(parts: Sequence[str]) -> tuple[str, int]:
    source, target = parts
    prompt, target = translation_prompt(source), _on_one_line(target)
    return (f"{prompt}{target}", len(prompt)) if source.strip() and target else ("", 0)


def _on_one_line(text: str) -> str:
    if text.isprintable() and "  " not in text and text[:1] != " " != text[-1:]:  # space is the only printable blank
        return text
    return " ".join(text.split())
