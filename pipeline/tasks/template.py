r"""Templates: texts with names in braces, such as `{title}\n{body}`.

In: a template and what its names stand for. Out: the text.
Invariants: what is filled in is not looked at again, so braces in a record stay as they are.
Cost: one pass over the template.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_NAME = re.compile(r"\{([^{}]+)\}")


def names_in(template: str) -> tuple[str, ...] | None:
    """The names in a template, in order; None where a brace lacks its other half.

    >>> names_in("{title}，{body.text}"), names_in("{title")
    (('title', 'body.text'), None)
    """
    rest = _NAME.sub("", template)
    return None if "{" in rest or "}" in rest else tuple(_NAME.findall(template))


def fill(template: str, value: Callable[[str], str]) -> str:
    """The template with each name replaced by its value.

    >>> fill("{甲}和{乙}", {"甲": "{乙}", "乙": "丙"}.__getitem__)
    '{乙}和丙'
    """
    return _NAME.sub(lambda match: value(match[1]), template)
