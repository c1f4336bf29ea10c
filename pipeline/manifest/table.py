"""TOML tables, read key by key: an unknown key, a missing key or a wrong type becomes a problem with line and key.

In: a TOML text. Out: its values, or a ManifestError that lists every problem.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from corpus.pipeline.errors import ManifestError

T = TypeVar("T")
W = TypeVar("W", bound=str)
_HEADER = re.compile(r"\s*(\[\[?)\s*([\w.-]+)\s*\]")
_KEY = re.compile(r"""\s*(?:"([^"]+)"|'([^']+)'|([\w-]+))\s*=""")


class Table:
    """One TOML table; each read removes its key, so keys left at the end are unknown."""

    def __init__(self, values: dict[str, Any], where: str, path: str = "", root: Table | None = None) -> None:
        self.values = dict(values)
        self.where = where
        self.path = path
        self.known: list[str] = []
        """Keys that were asked for."""
        self.problems: list[str] = root.problems if root else []
        self.text: str = root.text if root else ""

    @classmethod
    def of(cls, text: str, where: str) -> Table:
        """The outermost table of a text; `where` is its name in messages.

        Raises:
            ManifestError: the text is not TOML.

        """
        try:
            table = cls(tomllib.loads(text), where)
        except (ValueError, RecursionError) as error:  # also a number with too many digits, or deep nesting
            raise ManifestError(f"{where} is not TOML: {error}") from error
        table.text = text
        return table

    def error(self, key: str, what: str) -> ManifestError:
        """A problem at a key of this table."""
        line = line_of(self.text, self.path + key)
        return ManifestError(f"{self.where}{f':{line}' if line else ''}: {self.path}{key}: {what}")

    def attempt(self, read: Callable[[], T], otherwise: T) -> T:
        """What `read` returns; `otherwise` when it raises a ManifestError, which is kept for `finish`."""
        try:
            return read()
        except ManifestError as error:
            self.problems.append(error.message)
            return otherwise

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The value of a key; without `default` the key must be there."""
        self.known.append(key)
        value = self.values.pop(key, default)
        if value is None:
            raise self.error(key, "is missing")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise self.error(key, f"must be {kind.__name__}, is {type(value).__name__} {value!r}")
        if isinstance(value, int) and value < 0:
            raise self.error(key, f"must not be negative, is {value}")
        return value

    def one_of(self, key: str, choices: Sequence[W], default: W | None = None) -> W:
        """One of some words."""
        value = self.take(key, str, default)
        allowed: list[W] = [*choices, *([] if default is None else [default])]
        for choice in allowed:
            if value == choice:
                return choice
        raise self.error(key, f"{value!r} is not {', '.join(choices[:-1])} or {choices[-1]}")

    def strings(self, key: str, default: list[str] | None = None) -> tuple[str, ...]:
        """A list of strings."""
        values = self.take(key, list, default)
        if not all(type(value) is str for value in values):
            raise self.error(key, f"must be a list of strings, is {values!r}")
        return tuple(values)

    def tables(self, key: str) -> list[Table]:
        """A list of tables, empty without the key."""
        entries = self.take(key, list, [])
        for index, entry in enumerate(entries):
            if type(entry) is not dict:
                raise self.error(f"{key}[{index}]", f"must be a table, is {entry!r}")
        return [Table(entry, self.where, f"{self.path}{key}[{index}].", self) for index, entry in enumerate(entries)]

    def table(self, key: str, default: dict[str, Any] | None = None) -> Table:
        """A table."""
        return Table(self.take(key, dict, default), self.where, f"{self.path}{key}.", self)

    def finish(self) -> None:
        """Keep a problem for each key that was not read, with the known key that is nearest to it."""
        for key in self.values:
            near = difflib.get_close_matches(key, self.known, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            self.problems.append(self.error(key, f"unknown key{meant}").message)


def line_of(text: str, path: str) -> int | None:
    r"""The line of a key such as `members[1].split`; without it the line of its table, None without that.

    >>> line_of('name = "x"\n[[members]]\nsplit = "a"\n[[members]]\nsplit = "b"', "members[1].split")
    5
    """
    wanted_table, _, wanted_key = path.rpartition(".")
    table, seen, header = "", dict[str, int](), None
    for number, line in enumerate(text.splitlines(), 1):
        if match := _HEADER.match(line):
            table = match[2]
            if match[1] == "[[":
                seen[table] = seen.get(table, -1) + 1
                table = f"{table}[{seen[table]}]"
            if table in {wanted_table, path} or (match[2] == path and header is None):
                header = number
        elif (match := _KEY.match(line)) and table == wanted_table and wanted_key in match.groups():
            return number
    return header
