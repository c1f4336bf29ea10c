"""The command `corpus`: the group of all commands, and the one boundary for errors.

Nothing heavy is imported at the top of this package's modules: `corpus --help` must be fast.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from corpus.pipeline.cli import (
    demo,
    evaluate,
    export,
    ingest,
    inspect,
    manifest,
    pack,
    push,
    report,
    sample,
    score,
    serve,
    tasks,
    train,
)  # fmt: skip
from corpus.pipeline.cli.options import typed
from corpus.pipeline.errors import CorpusError
from corpus.pipeline.manifest import DATASETS
from corpus.pipeline.terminal import console

_WITHOUT_PANDAS = {"clean", "ingest", "dedup", "decontaminate", "tokenizer", "pack"}
"""Commands that need no pandas, which pyarrow would load where it is installed: a quarter of a second, unused."""


class Commands(click.Group):
    """Commands in the order of use instead of the alphabet's."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # the signature is click's
        """The order in which they were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a word that stands alone after the command is refused with the flag that it needs."""
        name, command, rest = super().resolve_command(ctx, args)
        word = "" if command is None or ctx.resilient_parsing else _stray_word(ctx, command, rest)
        if command is not None and word and (flag := _flag_for(word, command)):
            raise click.UsageError(f"{word} needs a flag: corpus {name} {flag} {typed(word)}", ctx=ctx)
        return name, command, rest


def _stray_word(ctx: click.Context, command: click.Command, arguments: Sequence[str]) -> str:
    """The first word that the command does not take: neither an option, nor its value, nor an argument; else empty."""
    try:
        _, stray, _ = command.make_parser(ctx).parse_args(list(arguments))
    except click.UsageError:  # click reports it when it parses them itself
        return ""
    return stray[0] if stray else ""


def _flag_for(word: str, command: click.Command) -> str:
    """The option of a command without arguments that takes such a word; empty if no option does."""
    if any(isinstance(parameter, click.Argument) for parameter in command.params):
        return ""
    there = {flag for parameter in command.params for flag in parameter.opts}
    place = "/" in word or Path(word).exists()
    wanted = ["--dataset"] if word in DATASETS else ["--source", "--against", "--workspace"] if place else []
    return next((flag for flag in [*wanted, "--prompt", "--model", "--dataset"] if flag in there), "")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="corpus-zh", prog_name="corpus")
def cli() -> None:
    """From five public Chinese corpora to a trained GPT.

    \b
    The whole way on the built-in dataset, in a few minutes on a laptop:
      corpus demo
    \b
    On the real corpora (here one of them, fetched from its mirrors):
      corpus ingest --dataset baike2018qa
      corpus pack --dataset baike2018qa
      corpus train --model gpt2-small
      corpus sample --prompt 我感冒了怎么办？
    \b
    From pre-training to talking (after corpus pack, pack --form chat and pack --form ranking):
      corpus train --model gpt2-small --run base
      corpus train --objective sft --init base --run tuned
      corpus train --objective reward --init tuned --run judge
      corpus train --objective ppo --init tuned --reward judge --run aligned
      corpus train --objective dpo --init tuned --run preferred
      corpus serve --model aligned

    Everything is written below one folder, the workspace. An interrupted command resumes when it is run again; one
    whose work is finished and current says so and does nothing.
    """


for command in (
    inspect.datasets, manifest.manifest, ingest.download, ingest.clean, ingest.ingest, ingest.dedup,
    ingest.decontaminate, ingest.quality, pack.tokenizer, pack.pack, export.export, tasks.tasks, train.train,
    sample.sample, serve.serve, evaluate.evaluate, score.score, report.report, report.card, push.push, demo.demo,
    inspect.status, inspect.verify, inspect.inspect, inspect.trace,
):  # fmt: skip
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 a named failure, 2 wrong usage, 130 interrupted."""
    _prepare()
    words, code = list(sys.argv[1:] if arguments is None else arguments), 1
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    elif words[:1] == ["version"]:
        words = ["--version"]
    if arguments is None and words and words[0] in _WITHOUT_PANDAS and not {"-h", "--help"} & {*words}:
        from corpus.pipeline.workers import refuse_pandas

        refuse_pandas()
    try:
        code = cli.main(words, prog_name="corpus", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("\nInterrupted. Run the same command again to continue.", file=sys.stderr)
        code = 130
    except CorpusError as error:
        console.failure(error)
    except MemoryError:
        console.failure(CorpusError("out of memory", hint="Use fewer --workers or a smaller model."))
    except OSError as error:
        console.failure(CorpusError(f"{error.filename or 'the system'}: {error.strerror or error}"))
    except Exception as error:  # users get a message, developers a traceback
        if os.environ.get("CORPUS_DEBUG"):
            raise
        console.failure(
            CorpusError(
                f"internal error: {type(error).__name__}: {error}",
                hint="This is a defect of corpus-zh. Run again with CORPUS_DEBUG=1 and report what it prints.",
            )
        )
    sys.exit(code)


def _prepare() -> None:
    """Escape characters that the terminal's encoding lacks; let SIGTERM end a command as Ctrl-C does.

    At exit the garbage collector stays off: with torch loaded it would take a second for memory that is freed anyway.
    """
    atexit.register(gc.freeze)
    console.open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with contextlib.suppress(ValueError):  # only the main thread may set a handler
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
