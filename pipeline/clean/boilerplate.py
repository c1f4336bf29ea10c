"""Trimming: removes the lines that a publisher put at the head and foot of a text.

In: a cleaned text. Out: the same without lines at its ends that only say who edited it, where it came from, which code
to scan or what to read next.
Invariants: only whole lines go, from the ends inwards, up to the first line of content; a text is never trimmed to
nothing; trimming is idempotent. In doubt a line stays: a leftover credit does less harm than a lost line.
Cost: most texts are decided by their first and last line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LONGEST_LINE = 80
"""A longer line is always content."""

_END = r"[）)】\]。！!]*"
_WORD = r"[^\n，。！？；,!?;]"
_PERSON = r"(?!谢谢|好的|再见)[^\s，。！？；：,!?;:/／你您我他她它们请这那怎谁什么吗呢吧啊嗯的了是在有不没个\d]{2,8}"
_PEOPLE = rf"{_PERSON}(?:[ 、/／&|]{{1,3}}{_PERSON}){{0,3}}"
_BY = "记者|通讯员|文|图|图文|文字|摄影|撰文|供稿|审核"
_FROM = "责任编辑|责编|值班编辑|编辑|排版|校对|选题|稿源|来源|图片来源|文章来源|稿件来源|信息来源|原文来源"
_ONE = rf"(?:{_BY}|{_FROM}|作者|译者)\s*[:：/／]\s*[^\s，。！？]{{1,40}}"

_LABELLED = "|".join(
    (
        rf"[（(【\[]?(?:本文|本稿)?(?:{_FROM})\s*[:：/／]{_WORD}{{0,60}}",
        rf"[（(【\[]?(?:{_BY})\s*[:：/／]\s*{_PEOPLE}[）)】\]]?",
        rf"[（(【\[]?(?:{_ONE}[\s|]+){{1,5}}{_ONE}",
    )
)
"""Credits and sources; within a list or a dialogue of such lines they are content."""

_WEAK = rf"[（(【\[]?(?:作者|译者)\s*[:：/／]\s*{_WORD}{{1,30}}|(?:链接|地址|网址|出处)\s*[:：]\s*https?://\S+"
"""The same, but as common in poems, book lists and download pages: trimmed only together with others."""

_STRONG = "|".join(
    (
        r"原标题\s*[:：][^\n]{0,60}",
        r"via\s*[:：]\s*https?://\S+",
        r"(?:原文|本文)(?:链接|地址|网址|出处)\s*[:：]\s*https?://\S+",
        r"\[\w{1,4}\]\s*[:：]\s*https?://\S+",
        # whose it is
        (
            r"[（(【]?本文(?:由|系|为)(?![^\n]*(?:介绍|讲述|讨论|分析|探讨|记录|说明))[^\n。]{0,40}"
            rf"(?:原创|独家|授权|首发|编译|翻译|稿件)(?:$|[）)】\]。！!，,；;\s稿自于刊]|发布|作品|文章|转载|出品|推出|整理)[^\n。]{{0,40}}{_END}"
        ),
        (
            r"[（(【※*]?未经[^\n]{0,8}(?:授权|许可|允许|同意)[^\n]{0,8}(?:不得|禁止|请勿|严禁|谢绝)[^\n]{0,8}"
            rf"(?:转载|摘编|镜像|搬运)[^\n]{{0,30}}{_END}"
        ),
        r"[（(【※*]?版权所有(?!者|权|人)[^\n]{0,60}",
        (
            r"[（(【※*]?(?:版权|著作权)归[^\n，。]{1,20}所有"
            rf"(?:[，,。；;！]\s*(?:任何|如|商业|请|联系|禁止|谢绝|严禁|未经|非商业|转载|侵权)[^\n]{{0,60}}|{_END})"
        ),
        r"[（(【※*]?转载请(?:注明|联系|保留)[^\n]{0,60}",
        r"(?:免责声明|版权声明)\s*[:：][^\n]{0,70}",
        r"(?:特别声明|郑重声明)\s*[:：](?=[^\n]*(?:本文|文章|转载|版权|观点|平台))[^\n]{0,70}",
        # what to do next
        (
            r"[（(【↑↓▲▼>》\s]*(?:请|欢迎|快来|赶快|立即|微信|打开微信|用微信)?(?:扫描|扫一扫|扫码|长按|识别)"
            r"(?:识别|扫描|上方|下方|上图|下图|图中|图片|以上|以下|文末|左侧|右侧|此|本|该|的|我们|本报|本站|官方|公众号|微信|小程序)*"
            r"二维码(?:[，,、！!]?\s*(?:即可|就能|可|立即|马上|一键)?(?:关注|订阅|下载|加入|添加|加群|进群|阅读|查看|了解|获取|分享|报名|咨询|联系|领取)"
            rf"[^\n。]{{0,24}})?{_END}"
        ),
        (
            r"[^\n。，,：:“”]{0,12}(?:欢迎|敬请|请|快来|记得)(?:大家|您)?(?:关注|订阅|搜索|添加)[^\n。，]{0,20}"
            rf"(?:微信|公众号|微博|客户端|头条号)(?![上里中的用])[^\n。]{{0,30}}{_END}"
        ),
        (
            r"(?:获取|查看|了解)?更多(?:精彩|详细|相关|最新)?(?:内容|资讯|新闻|详情|信息|消息)?[^\n。，]{0,12}"
            rf"(?:尽在|敬请(?:关注|期待|登录|访问)|请(?:点击|关注|登录|访问|下载|搜索|扫))[^\n。]{{0,40}}{_END}"
        ),
        (
            r"[>》]*(?:请)?点击(?:下方|文末|左下角|这里|此处)?(?:的)?[“「]?(?:阅读原文|原文|蓝字|查看(?:原文|更多|详情|全文|大图)|"
            rf"了解(?:更多|详情)|进入(?:专题|直播|图集|官网)|下载客户端|关注)[^\n。]{{0,20}}[>》]*{_END}"
        ),
        (
            r"(?:阅读原文|相关阅读|延伸阅读|推荐阅读|相关新闻|热点新闻|我要评论|分享到|上一篇|下一篇)"
            r"\s*(?:[:：>》|][^\n。]{0,60})?"
        ),
    )
)

_FRAME = re.compile(f"(?P<labelled>{_LABELLED})|(?P<strong>{_STRONG})|(?P<weak>{_WEAK})|(?P<rule>[-=*_—─~]{{3,80}})")

_LIST = re.compile(r"(?![^\n：:]{0,16}(?:消息|讯|电|报道))[^\W\d_]{1,8}(?:[（(][^\n）)]{0,10}[）)])?\s*[:：](?!//)")
"""How a line of a list or a dialogue begins: a label, a colon."""


def is_frame(line: str) -> bool:
    """Whether a line alone at an end of a text is a frame line.

    >>> is_frame("（责任编辑：小林）"), is_frame("编辑部里只剩下他一个人。")
    (True, False)
    """
    return _kind(line) in {"labelled", "strong", "rule"}


def trim(text: str) -> str:
    """The text without its frame lines."""
    first = text.find("\n")
    if first < 0 or not (_kind(text[:first]) or _kind(text[text.rfind("\n") + 1 :])):
        return text
    lines = text.split("\n")
    head, foot = _frame_lines(lines), _frame_lines(lines[::-1])
    kept = "\n".join(lines[head : len(lines) - foot])
    if not kept.strip():
        return text
    kept = kept.rstrip("\n") if foot else kept
    return kept.lstrip("\n") if head else kept


def _kind(line: str) -> str:
    """`labelled`, `strong`, `weak`, `rule`, `blank`, or "" for content."""
    line = line.strip()
    if not line:
        return "blank"
    if len(line) > LONGEST_LINE:
        return ""
    found = _FRAME.fullmatch(line)
    return found.lastgroup or "" if found else ""


def _frame_lines(lines: Sequence[str]) -> int:
    """How many of the first lines are the frame, blank lines between them included; 0 without any content."""
    block: list[tuple[int, str]] = []  # lines up to each frame line, and its kind
    for count, line in enumerate(lines, 1):
        kind = _kind(line)
        if not kind:
            if block and _LIST.match(line):
                while block and block[-1][1] in {"labelled", "weak"}:
                    block.pop()
            break
        if kind != "blank":
            block.append((count, kind))
    else:
        return 0
    if all(kind in {"weak", "rule"} for _, kind in block):
        weak = next((index for index, (_, kind) in enumerate(block) if kind == "weak"), len(block))
        block = block[:weak]
    return block[-1][0] if block else 0
