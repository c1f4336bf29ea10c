"""The page: facts, samples and charts in one self-contained HTML file.

In: what `corpus.pipeline.report.build` gathered.
Out: HTML.
Invariants: the template engine escapes everything that is not markup of this project, and unsafe characters are shown
by their code points. The policy in the page allows no script, style, image or request but the page's own.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from corpus.pipeline.humanize import repeated, visible

_LONGEST = 2_000
"""Most characters of one string that are shown."""


def render(**values: Any) -> str:
    """The page."""
    import jinja2  # noqa: PLC0415  # 0.1 s that `corpus --help` should not pay

    css, js = _resource("page.css"), _resource("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(css)}'; script-src '{_digest(js)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(seen=seen, ticks=_ticks, heat=_heat, repeated=repeated)
    template = environment.from_string(_resource("page.html"))
    return template.render(**values, css=css, js=js, policy=policy, words=words())


@functools.cache
def words() -> Mapping[str, tuple[str, str]]:
    """The page's own words: English and Chinese, by key."""
    return {key: (english, chinese) for key, (english, chinese) in tomllib.loads(_resource("words.toml")).items()}


def alternative(key: str, english: str, chinese: str) -> dict[str, str]:
    """The alternative text of a picture, by language: its title and what it shows."""
    titles = words()[key]
    return {"en": f"{titles[0]}: {english}", "zh": f"{titles[1]}：{chinese}"}


def seen(text: str) -> str:
    """Untrusted text, safe and of limited length.

    >>> seen("a" + chr(0x202E) + "b")
    'a⟨202E⟩b'
    """
    return visible(text[:_LONGEST] + (" …" if len(text) > _LONGEST else ""))


def data(values: Any) -> str:
    """JSON for a script element of a type that no browser runs; nothing in it can end the element."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _ticks(text: str) -> Any:
    """Words between backticks as code."""
    from markupsafe import Markup, escape  # noqa: PLC0415  # comes with the template engine

    parts = re.split(r"`([^`]*)`", text)
    pieces = [Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)]
    return Markup("").join(pieces)


def _heat(count: int) -> int:
    """The colour class of a cell: the number of digits, at most 4.

    >>> [_heat(count) for count in (0, 7, 70, 100_000)]
    [0, 1, 2, 4]
    """
    return min(len(str(count)), 4) if count else 0


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _resource(name: str) -> str:
    return files("corpus.pipeline.report").joinpath(name).read_text(encoding="utf-8")
