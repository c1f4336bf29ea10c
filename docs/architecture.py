"""Draw the house from its imports: `docs/architecture.svg`, and the table of wings in `docs/architecture.md`.

In: the import graph of the installed `corpus` packages (grimp, which import-linter brings). Out: one picture and one
table. Invariant: equal imports give equal bytes, so `make check` sees when the page is behind the code.
"""

from __future__ import annotations

import ast
import html
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import grimp

PICTURE = Path(__file__).with_name("architecture.svg")
PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "<!-- wings: written by docs/architecture.py -->", "<!-- /wings -->"
WAY = (
    "download", "read", "clean", "documents", "dedup", "decontaminate", "quality", "tokenizer", "pack", "train.run",
    "generate",
)  # fmt: skip
"""The record's way, in order."""
WIDTH, BOX, ROW, GAP, TOP = 1180, (150, 60), 106, 14, 66
COLOURS = {"way": ("#fff1dc", "#c8741a"), "train": ("#e6effb", "#3b6fb5"), "generate": ("#e4f4e8", "#2f7d4f")}
PLAIN = ("#f4f4f2", "#8a8a86")


@dataclass
class Wing:
    """A box of the picture: a package, or a module directly in `pipeline/`."""

    name: str
    purpose: str = ""
    imports: set[str] = field(default_factory=set)
    floor: int = 0
    x: float = 0

    @property
    def colours(self) -> tuple[str, str]:
        """Fill and stroke."""
        return COLOURS.get(self.name.split(".")[0], COLOURS["way"] if self.name in WAY else PLAIN)


def wing_of(module: str) -> str:
    """The wing that a module belongs to, without `corpus.` and `pipeline.`.

    >>> wing_of("corpus.pipeline.read.parse"), wing_of("corpus.train.run.stage"), wing_of("corpus.generate.bulk")
    ('read', 'train.run', 'generate')
    """
    _, package, *rest = module.split(".")
    if package == "pipeline":
        return rest[0] if rest else ""
    if package == "generate":
        return f"generate.{rest[0]}" if rest and rest[0] in {"config", "engine"} else "generate"
    return f"train.{rest[0]}" if rest else ""


def wings() -> dict[str, Wing]:
    """Every wing with what it imports, and its floor: one above the highest wing that it imports."""
    graph = grimp.build_graph("corpus.pipeline", "corpus.train", "corpus.generate")
    found: dict[str, Wing] = {}
    for module in sorted(graph.modules):
        name = wing_of(module)
        if not name:
            continue
        wing = found.setdefault(name, Wing(name, purpose(module)))
        wing.imports |= {wing_of(other) for other in graph.find_modules_directly_imported_by(module)} - {name, ""}
    for _ in found:
        for wing in found.values():
            wing.floor = max((found[other].floor + 1 for other in wing.imports), default=0)
    return found


def purpose(module: str) -> str:
    """The first sentence of a module's docstring."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).split(". ")[0].removesuffix(".")


def needed(name: str, found: dict[str, Wing]) -> set[str]:
    """Imports that no other import of the wing brings along: the arrows that are drawn."""

    def below(start: str) -> set[str]:
        return {start}.union(*(below(other) for other in found[start].imports))

    direct = found[name].imports
    return {other for other in direct if not any(other in below(third) for third in direct - {other})}


def place(found: dict[str, Wing]) -> list[list[Wing]]:
    """The floors from the top down, each ordered so that arrows are short."""
    floors = [
        sorted((wing for wing in found.values() if wing.floor == floor), key=_order)
        for floor in range(max(wing.floor for wing in found.values()), -1, -1)
    ]
    for turn in range(6):
        for row in floors:
            if turn:
                row.sort(key=lambda wing: (_middle(wing, found), _order(wing)))
            left = (WIDTH - len(row) * BOX[0] - (len(row) - 1) * GAP) / 2
            for number, wing in enumerate(row):
                wing.x = left + number * (BOX[0] + GAP)
    return floors


def _order(wing: Wing) -> tuple[int, str]:
    return (WAY.index(wing.name) if wing.name in WAY else len(WAY), wing.name)


def _middle(wing: Wing, found: dict[str, Wing]) -> float:
    near = [found[other].x for other in wing.imports]
    near += [other.x for other in found.values() if wing.name in other.imports]
    return sum(near) / len(near) if near else wing.x


def picture(found: dict[str, Wing]) -> str:
    """The picture, as SVG."""
    floors = place(found)
    height = TOP + ROW * len(floors) + 20
    down = {wing.name: TOP + ROW * number for number, row in enumerate(floors) for wing in row}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        "<title>The wings of corpus-zh and what they import</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(WIDTH / 2, 26, "corpus-zh: every arrow is an import, and all of them point down", 17, bold=True),
        _text(WIDTH / 2, 48, "Numbers follow a record. Arrows that others imply are left out.", 12.5, "#555"),
    ]
    for wing in found.values():
        for other in sorted(needed(wing.name, found)):
            x1, y1 = wing.x + BOX[0] / 2, down[wing.name] + BOX[1]
            x2, y2 = found[other].x + BOX[0] / 2, down[other]
            bend = (y2 - y1) / 2
            path = f"M{x1:.0f} {y1} C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2}"
            parts.append(f'<path d="{path}" fill="none" stroke="{wing.colours[1]}" stroke-opacity=".45"/>')
    for row in floors:
        for wing in row:
            parts += _box(wing, down[wing.name])
    return "\n".join([*parts, "</svg>", ""])


def _box(wing: Wing, y: float) -> Iterable[str]:
    fill, stroke = wing.colours
    yield (
        f'<rect x="{wing.x:.0f}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="{fill}" stroke="{stroke}"/>'
    )
    yield _text(wing.x + BOX[0] / 2, y + 17, wing.name, 13, bold=True)
    short = wing.purpose.split(": ")[0].replace("`", "")
    for number, line in enumerate(textwrap.wrap(short, 28, max_lines=3, placeholder=" …")):
        yield _text(wing.x + BOX[0] / 2, y + 31 + 11 * number, line, 9.5, "#444")
    if wing.name in WAY:
        yield f'<circle cx="{wing.x:.0f}" cy="{y}" r="10" fill="{COLOURS["way"][1]}"/>'
        yield _text(wing.x, y + 4, str(WAY.index(wing.name) + 1), 11, "#fff", bold=True)


def _text(x: float, y: float, text: str, size: float, colour: str = "#1b1b1b", *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}" text-anchor="middle"{weight}>'
        f"{html.escape(text)}</text>"
    )


def table(found: dict[str, Wing]) -> str:
    """The wings as a Markdown table, from the top floor down."""
    rows = ["| wing | what it is for | imports |", "|---|---|---|"]
    rows += [
        f"| `{wing.name}` | {wing.purpose} | {' '.join(sorted(wing.imports)) or '-'} |"
        for wing in sorted(found.values(), key=lambda wing: (-wing.floor, _order(wing)))
    ]
    return "\n".join(rows)


def pages() -> dict[Path, str]:
    """What each file should hold."""
    found = wings()
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return {PICTURE: picture(found), PAGE: f"{before}{BEGIN}\n{table(found)}\n{END}{after}"}
