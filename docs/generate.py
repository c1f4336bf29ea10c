"""Write `docs/cli.md` from the commands' own `--help`, or check that it is current (`--check`)."""

from __future__ import annotations

import sys
from pathlib import Path

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
    if "--check" in sys.argv:
        if not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != page():
            sys.exit("docs/cli.md is not current: run `make docs`")
    else:
        TARGET.write_text(page(), encoding="utf-8")
