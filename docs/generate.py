"""Write what the code says of itself, or check that it is current (`--check`).

`docs/cli.md` comes from the commands' own `--help`, the picture and table of `docs/architecture.md` from the imports.
"""

from __future__ import annotations

import sys
from pathlib import Path

import architecture
import click

from corpus.pipeline.cli.main import cli

TARGET = Path(__file__).with_name("cli.md")


def page() -> str:
    """The reference of all commands, as Markdown."""
    parts = [
        "# Commands\n\nThis page is what `corpus --help` and `corpus COMMAND --help` print. `make docs` writes it.\n"
    ]
    context = click.Context(cli, info_name="corpus", **{**cli.context_settings, "terminal_width": 100})
    parts.append(f"## corpus\n\n```\n{_plain(cli.get_help(context))}\n```\n")
    for name in cli.list_commands(context):
        command = cli.commands[name]
        child = click.Context(command, info_name=name, parent=context, terminal_width=100, max_content_width=100)
        parts.append(f"## corpus {name}\n\n```\n{_plain(command.get_help(child))}\n```\n")
    return "\n".join(parts)


def _plain(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines())


if __name__ == "__main__":
    for path, text in {TARGET: page(), **architecture.pages()}.items():
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"docs/{path.name} is not current: run `make docs`")
