"""The conversation of `corpus sample --chat`.

In: a model, and questions from a terminal, a pipe or a file. Out: answers, streamed to standard output.
Invariant: at a terminal Ctrl-C stops an answer, never the conversation; Ctrl-D and SIGTERM end it.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import click

from corpus.pipeline.terminal import console

_EXIT, _RESET = "/exit", "/reset"


def warn_if_untuned(folder: Path) -> None:
    """Warn where the run's ledger says that a model was trained on text alone."""
    from corpus.generate.chat import is_untuned

    if is_untuned(folder):
        console.Console().say(
            "this model was trained on text alone: it continues, it does not answer; "
            "`corpus train --objective sft --init DIR` tunes one"
        )


class _Interrupts:
    """A handler of Ctrl-C that raises only while enabled: during an answer, and while a line is typed."""

    def __init__(self) -> None:
        self.enabled = False

    def __call__(self, _number: int, _frame: object) -> None:
        """Raise once; a second Ctrl-C must not interrupt the clean-up."""
        if self.enabled:
            self.enabled = False
            raise KeyboardInterrupt


def scores_text(choice: Any) -> str:
    """The scores of best-of-n in one line."""
    scores = [
        "none: longer than the reward model's context" if each is None else f"{each:.3f}" for each in choice.scores
    ]
    return f"(sample {choice.sample + 1} of {len(scores)}, score {scores[choice.sample]}; all: {', '.join(scores)})"


def talk(model: Any, config: Any, scorer: Any = None) -> None:
    """Answer questions until the user or the input ends; with a scorer by the best of several answers."""
    from corpus.generate.chat import Chat

    progress = console.Console()
    chat = Chat(model, config, scorer=scorer, progress=progress)
    progress.say(f"seed {config.seed}; {_RESET} forgets what was said, {_EXIT} or Ctrl-D ends, Ctrl-C stops an answer")
    interrupts = _Interrupts()
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    handlers: dict[int, Any] = {signal.SIGTERM: _leave} | ({signal.SIGINT: interrupts} if is_terminal else {})
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        for question in _typed(progress, interrupts) if is_terminal else _piped():
            if question == _EXIT:
                break
            if question == _RESET:
                chat.reset()
                progress.say("(forgotten)")
            elif question:
                interrupts.enabled = True  # without effect on a pipe, where Ctrl-C ends the conversation
                try:
                    _stream(chat, question, progress)
                    interrupts.enabled = False
                except KeyboardInterrupt:
                    if not is_terminal:
                        raise
                    progress.say(" (stopped)")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stream(chat: Any, question: str, progress: console.Console) -> None:
    """Stream one answer; a stopped one stays in the conversation up to there."""
    with contextlib.closing(chat.ask(question)) as pieces:
        for piece in pieces:
            console.write(piece.text, end="")
            if piece.finish and piece.finish.reason == "length":
                progress.say(f"\n(cut after {piece.finish.tokens} tokens; more with --max-new-tokens)")
    console.write()
    if chat.choice:
        progress.say(scores_text(chat.choice))


def _typed(progress: console.Console, interrupts: _Interrupts) -> Iterator[str]:
    """Lines typed at a terminal."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # gives `input` the arrow keys
    while True:
        try:
            interrupts.enabled = True
            line = input("> ")
            interrupts.enabled = False
            line.encode()
        except EOFError:
            console.write()
            return
        except KeyboardInterrupt:
            console.write()
            continue
        except UnicodeError:
            progress.say("that was not UTF-8")
            continue
        yield line.strip()


def _piped() -> Iterator[str]:
    """Questions of a pipe or a file, one a line, each printed before its answer."""
    from corpus.generate.prompt_file import questions

    for question in questions(sys.stdin.buffer):
        if question not in {_EXIT, _RESET}:
            console.write(f"> {question}")
        yield question


def _leave(_number: int, _frame: object) -> NoReturn:
    """SIGTERM ends a conversation; elsewhere it acts as Ctrl-C, which would only stop the answer."""
    raise click.Abort
