"""HTML tags and entities: removes what a browser does not show, keeps what it shows.

Invariants: code in backticks and names such as `List<String>` are content; every pattern is linear in its input.
"""

from __future__ import annotations

import functools
import html
import html.entities
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from corpus.pipeline import kernels
from corpus.pipeline.clean.unicode import basic_characters
from corpus.pipeline.text.codepoints import SEAM

_BLOCK_TAGS = (
    "address|article|aside|blockquote|br|caption|center|dd|div|dl|dt|figcaption|figure|footer|form|h1|h2|h3|h4|h5|h6|header|hr|li|main|"
    "nav|ol|p|poem|pre|section|table|tbody|td|tfoot|th|thead|title|tr|ul"
)
_INLINE_TAGS = (  # without those that are names in texts about programs: source, time, path, q
    "a|abbr|acronym|audio|b|bdi|bdo|big|body|button|cite|code|col|colgroup|del|details|dfn|em|embed|font|gallery|head|html|i|"
    "iframe|img|input|ins|kbd|label|link|mark|math|meta|nobr|noscript|nowiki|object|option|param|ref|references|rp|rt|ruby|s|"
    "samp|script|select|small|span|strike|strong|style|sub|summary|sup|svg|textarea|tt|u|var|video|wbr"
)


def _one_of(words: Iterable[str]) -> str:
    """A pattern for any of some words that reads each character once, as a trie.

    >>> _one_of(["p", "pre", "br"])
    '(?:br|p(?:re)?)'
    """
    heads: dict[str, list[str]] = {}
    for word in sorted(set(words)):
        heads.setdefault(word[:1], []).append(word[1:])
    whole = [] if heads.pop("", None) is None else [""]
    branches = [head + _one_of(tails) for head, tails in heads.items()]
    if not branches:
        return ""
    body = branches[0] if len(branches) == 1 and not whole else f"(?:{'|'.join(branches)})"
    return f"{body}?" if whole else body


_TAGS = [*_INLINE_TAGS.split("|"), *_BLOCK_TAGS.split("|")]
_GAP = r"[ \t\n\r\f\v]"  # `\s` would match the seam
_ATTRIBUTES = (  # with a value, or known to need no value: `a<b and c>d` is no tag; possessive: no backtracking
    rf"""(?:{_GAP}++(?:[A-Za-z_:@][\w:.-]{{0,60}}+{_GAP}*+=(?>{_GAP}*(?:"[^"<>{SEAM}]{{0,2000}}"|'[^'<>{SEAM}]{{0,2000}}'"""
    rf"""|[^\s<>{SEAM}]{{0,2000}}))"""
    r"|(?i:allowfullscreen|async|autoplay|checked|compact|controls|defer|disabled|hidden|loop|muted|noshade|nowrap|open"
    r"|reversed|selected))){0,40}+"
)
_TAG_BODY = (
    rf"(?:!--(?:(?!<!--)[^{SEAM}]){{0,4000}}?-->"
    rf"|(/?)({_one_of(_TAGS)}|{_one_of(map(str.upper, _TAGS))}){_ATTRIBUTES}{_GAP}{{0,20}}/?>)"
)
_TAG = re.compile(f"(<{_TAG_BODY})")
_MARKUP = re.compile(  # code that was marked as code is content
    rf"([<`](?:(?<=`)(?:``(?:[^`{SEAM}]++|`(?!``))*+```|[^`\n{SEAM}]+`)|(?<=<){_TAG_BODY}))"
)
_TAG_STEP = 4  # both patterns split into the text before, the whole tag or code, the slash of an end tag, its name
_LONG = 1 << 20  # characters
_BLOCKS = frozenset(_BLOCK_TAGS.split("|"))
_LEAVES = {
    written: "\n" if tag in _BLOCKS else ""
    for tag in _TAGS
    if tag not in {"rt", "sup"}
    for written in ((tag,) if len(tag) == 1 else (tag, tag.upper()))
}
"""Replacements of the tags that leave the same in every context."""
_UNSEEN_END = re.compile("</(?i:script|style|rp)")
_UNSEEN = re.compile(
    rf"<(?P<tag>script|style|rp)\b[^<>{SEAM}]{{0,2000}}>|</(?:script|style|rp){_GAP}*>|```|`|{SEAM}", re.IGNORECASE
)
_ENTITY = re.compile(r"&(?:amp;|#38;|#x26;)*(#\d{1,8};|#[xX][0-9a-fA-F]{1,7};|[A-Za-z][A-Za-z0-9]{1,31};|nbsp)")


def unescape_entities(text: str) -> str:
    """Replace HTML entities, also those escaped several times. Unknown ones such as `&params;` stay."""
    return _ENTITY.sub(_character, text)


def strip_tags(text: str) -> str:
    """Remove known HTML and wiki tags; block tags leave a line break. `List<String>` and code in backticks stay."""
    return SEAM.join(list(map(_without_tags, _drop_unseen(text).split(SEAM))))


def strip_tags_batch(texts: list[str]) -> list[str]:
    """`strip_tags` for each text."""
    stripped = kernels.compiled.strip_tags(texts, _tag_table(), _tag_characters())
    return [strip_tags(text) if new is None else new for text, new in zip(texts, stripped, strict=True)]


def _character(match: re.Match[str]) -> str:
    """The character of an entity, or the match itself if no such entity exists."""
    name = match[1]
    return html.unescape(f"&{name}") if name[0] == "#" or name in html.entities.html5 else match[0]


def _without_tags(text: str) -> str:
    """One text without tags. `split` is faster than `sub`, but holds all tags in memory."""
    pattern = _MARKUP if "`" in text else _TAG
    if len(text) > _LONG:
        return pattern.sub(lambda tag: _leaf(tag[1], tag[2], tag[3], text[max(tag.start() - 1, 0) : tag.start()]), text)
    found = pattern.split(text)
    kept: list[Any] = [None] * (len(found) // 2 + 1)
    kept[::2] = found[::_TAG_STEP]
    kept[1::2] = leaves = list(map(_LEAVES.get, found[3::_TAG_STEP]))
    if None in leaves:
        for index in [index for index, leaf in enumerate(leaves) if leaf is None]:
            last, whole, end, tag = found[_TAG_STEP * index : _TAG_STEP * (index + 1)]
            kept[2 * index + 1] = _leaf(whole, end, tag, last[-1:])
    return "".join(kept)


def _leaf(whole: str, end: str | None, tag: str | None, before: str) -> str:
    """The replacement of a tag or of code, given the character before it."""
    if tag is None:
        return whole if whole[0] == "`" else ""
    if len(tag) == 1 and not end and before.isascii() and before.isalnum():
        return whole  # `Class<S>`
    name = tag.lower()
    if name == "rt":  # the reading beside a word
        return "）" if end else "（"
    if name == "sup" and not end and before.isascii() and (before.isalnum() or before == ")"):
        return "^"  # 10<sup>5</sup> is not 105
    return "\n" if name in _BLOCKS else ""


@functools.cache
def _tag_table() -> bytes:
    """The kernel's table of tags, sorted: eleven bytes of name and one for the kind of its replacement.

    A tag of one capital letter may be a name in a program: its kind is that of the small letter plus four.
    """
    kinds = dict.fromkeys(_BLOCKS, 1) | {"rt": 2, "sup": 3}
    entries = {tag: kinds.get(tag, 0) for tag in _TAGS}
    entries |= {tag.upper(): kind + 4 * (len(tag) == 1) for tag, kind in entries.items()}
    return b"".join(name.encode().ljust(11, b"\0") + bytes([kind]) for name, kind in sorted(entries.items()))


@functools.cache
def _tag_characters() -> np.ndarray:
    """[0x10000] uint8: 1 for characters of attribute names, 2 for blanks."""
    table = np.zeros(0x10000, dtype=np.uint8)
    for kind, pattern in ((1, r"\w"), (2, r"\s")):
        table[list(map(ord, basic_characters(re.compile(pattern))))] |= kind
    return table


def _drop_unseen(text: str) -> str:
    """Remove the contents of `script`, `style` and `rp`, which a browser does not show, but not inside code."""
    if _UNSEEN_END.search(text) is None:
        return text
    kept: list[str] = []
    last = 0  # everything before it is decided
    opened: int | None = None
    code = ""
    for match in _UNSEEN.finditer(text):
        token = match[0]
        if token == SEAM:
            opened, code = None, ""
        elif token[0] == "`":
            code = "" if code == token else code or token
        elif code:
            continue
        elif match["tag"]:
            opened = match.start() if opened is None else opened
        elif opened is not None:
            kept.append(text[last:opened])
            last, opened = match.end(), None
    kept.append(text[last:])
    return "".join(kept)
