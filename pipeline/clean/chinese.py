"""Chinese script and punctuation: Traditional to Simplified, and empty brackets left by an extraction."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from corpus.pipeline.text.codepoints import SEAM

OPENERS = {"（": "）", "「": "」", "『": "』", "《": "》", "〈": "〉", "【": "】", "〔": "〕"}
CLOSERS = {closer: opener for opener, closer in OPENERS.items()}
FILLERS = "，、；：。,;: \u3000\u00a0"
_LINE_END = re.compile(f"[\n{SEAM}]")
EMPTY_BRACKET = re.compile("|".join(f"{opener}[{FILLERS}]*{closer}" for opener, closer in OPENERS.items()))


def simplify_script(text: str) -> str:
    """Convert Traditional lines to Simplified with OpenCC.

    Only lines with a Traditional-only character are converted: on other lines OpenCC's phrases would turn the
    Simplified 打坏 into 打坯, and would not be idempotent on 毕昇.
    """
    simplify, traditional, _ = converters()
    between: list[str] = []
    lines: list[str] = []
    last = 0
    while found := traditional(text, last):
        hit = found.start()
        begin = max(last, text.rfind("\n", last, hit) + 1, text.rfind(SEAM, last, hit) + 1)
        line_end = _LINE_END.search(text, hit)
        end = line_end.start() if line_end else len(text)
        between.append(text[last:begin])
        lines.append(text[begin:end])
        last = end
    if not lines:
        return text
    simplified = simplify("\n".join(lines)).split("\n")  # one call is faster than one a line
    return "".join([part for pair in zip(between, simplified, strict=True) for part in pair]) + text[last:]


def drop_empty_brackets(text: str) -> str:
    """Remove brackets that are empty or hold only punctuation, since an extraction took their content."""
    kept: list[str] = []
    open_at: list[int] = []
    for character in text:
        if character in OPENERS:
            open_at.append(len(kept))
            kept.append(character)
        elif open_at and kept[open_at[-1]] == CLOSERS.get(character):
            del kept[open_at.pop() :]
        else:
            if character not in FILLERS:
                open_at.clear()
            kept.append(character)
    return "".join(kept)


@functools.cache
def converters() -> tuple[Callable[[str], str], Callable[..., re.Match[str] | None], list[str]]:
    """OpenCC's converter, a search for Traditional-only characters, and all such characters."""
    import opencc  # noqa: PLC0415  # slow: it loads its dictionaries

    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    characters = [chr(code) for first, end in ((0x3400, 0x4DC0), (0x4E00, 0xA000)) for code in range(first, end)]
    simplified = convert("\n".join(characters)).split("\n")
    traditional = {before for before, after in zip(characters, simplified, strict=True) if before != after}
    # In names and set phrases OpenCC leaves some unchanged (乾隆, 毕昇, 幺麽, 吴祕, 变徵, 蒐于红, 懷釐, 东氾, 芸薹,
    # 联陞): alone they prove nothing. Characters beyond the basic plane make the search slow and occur beside
    # others that prove the script.
    ambiguous = set("乾昇麽祕徵蒐釐氾薹陞噁") | set("".join(simplified))
    ambiguous |= {before for before, after in zip(characters, simplified, strict=True) if ord(after[0]) > 0xFFFF}
    certain = sorted(traditional - ambiguous)
    return convert, re.compile("[" + "".join(certain) + "]").search, certain
