"""`corpus sample`: continue prompts or files of prompts, chat, or measure what a token costs."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpus.pipeline.cli import chat as conversation
from corpus.pipeline.cli import completion
from corpus.pipeline.cli.options import config_of, model_folder, nothing_to_resume, workspace_of, workspace_option
from corpus.pipeline.humanize import size_text
from corpus.pipeline.terminal import console

if TYPE_CHECKING:
    from corpus.generate.config import Finish
    from corpus.generate.prompt_file import PromptFile


@click.command()
@click.option(
    "--model", metavar="DIR", shell_complete=completion.models,
    help="A run's name, or a model's folder.  [default: the newest run, those of tasks and reward models left out]",
)  # fmt: skip
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="TEXT",
    help="Text to continue; may be repeated.  [default: none, so a new document begins]",
)
@click.option(
    "--prompts", "prompts_file", metavar="FILE",
    help="Prompts in a file, or - for a pipe: one a line, or JSON Lines with strings or objects with a prompt.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="PATH",
    help="File of the results of --prompts, or folder of --timings.  [default: printed; timings-MODEL/]",
)  # fmt: skip
@click.option(
    "--chat", is_flag=True,
    help="Chat with a model that was fine-tuned on questions and answers; with --prompt or --prompts: ask it these.",
)  # fmt: skip
@click.option(
    "--shots", type=click.Path(path_type=Path), metavar="FILE",
    help="Examples to put first: JSON Lines with prompt and answer, or blocks of text.",
)  # fmt: skip
@click.option("--translate", is_flag=True, help="Prompts are English; the model writes the Chinese.")
@click.option("--timings", is_flag=True, help="Measure what a token costs, with and without cache, and plot it.")
@click.option("--max-new-tokens", default=256, show_default=True, help="Most tokens of one sample.")
@click.option(
    "--temperature", default=1.0, show_default=True, help="Below 1 favours likely tokens; 0 always takes the likeliest."
)
@click.option("--top-k", default=30, show_default=True, help="Choose among the k likeliest tokens; 0: all.")
@click.option("--top-p", default=1.0, show_default=True, help="Choose among the likeliest tokens that add up to p.")
@click.option("--repetition-penalty", default=1.0, show_default=True, help="Above 1 makes repetition less likely.")
@click.option("--num-samples", default=1, show_default=True, help="Different continuations of each prompt.")
@click.option(
    "--best-of", type=int, metavar="N", help="Write N continuations of each prompt and keep the best, by --reward."
)
@click.option(
    "--reward", metavar="DIR", shell_complete=completion.models,
    help="The reward model of --best-of: a run of corpus train --objective reward, or its folder.",
)  # fmt: skip
@click.option("--seed", type=int, metavar="N", help="The same seed gives the same text.  [default: a new one, printed]")
@click.option("--batch-size", default=16, show_default=True, help="Most samples in one batch.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End a sample at this text; may be repeated.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps", "xpu"]), default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@workspace_option()
def sample(
    model: str | None, device: str, precision: str, seed: int | None, workspace_dir: Path, prompts_file: str | None,
    output: Path | None, chat: bool, shots: Path | None, translate: bool, timings: bool, reward: str | None,
    **settings: Any,
) -> None:  # fmt: skip
    """Continue prompts until the model ends the document.

    --model names a run, RUN/best, RUN/checkpoint-N, or any folder with a model. --prompts continues whole files:
    one JSON line for each result, in the order of the prompts. With --output an interrupted command resumes. With
    --shots or --translate, prompts take the form of training documents, and the answer ends where the model ends
    the document. With --best-of a reward model chooses; no text is streamed then, as the choice needs all N. See
    docs/sampling.md.

    \b
    Examples:
      corpus sample --prompt 我感冒了怎么办？
      corpus sample --prompt 秋天的山里 --num-samples 3 --temperature 0.8 --seed 7
      corpus sample --prompts questions.txt --output answers.jsonl --batch-size 32
      cat questions.jsonl | corpus sample --prompts - --model my-run/best > answers.jsonl
      corpus sample --prompt 蜡烛为什么会越烧越短？ --shots examples.jsonl
      corpus sample --prompt "The library opens at nine." --translate --temperature 0
      corpus sample --chat --model my-tuned-run
      corpus sample --chat --model my-tuned-run --best-of 8 --reward rm
      corpus sample --timings --model my-run
    """
    from corpus.generate.config import SampleConfig, TimingsConfig
    from corpus.generate.prompt_file import shots as read_shots

    prompts, modes = settings["prompts"], {"--chat": chat, "--shots": shots, "--translate": translate}
    talks = chat and not prompts and prompts_file is None
    _check_usage(
        {"--prompt": prompts, "--prompts": prompts_file, "--chat": talks, "--timings": timings},
        {"--output": output, "--shots": shots, "--translate": translate},
    )
    _check_modes(modes, prompts, talks=talks, many=settings["num_samples"])
    _check_choice(settings["best_of"], reward, timings=timings)
    timed = config_of(TimingsConfig, batch_size=settings["batch_size"])
    settings["prompts"] = prompts or ("",)
    config = config_of(SampleConfig, **settings, **({} if seed is None else {"seed": seed}))
    workspace = workspace_of(workspace_dir)
    folder = model_folder(workspace, model, of_task=False)
    judge = None if reward is None else model_folder(workspace, reward, "--reward")
    pairs = read_shots(shots) if shots else []
    blank, scored = not any(modes.values()), judge is not None
    file = None if prompts_file is None else _prompt_file(prompts_file, output, blank=blank, scored=scored)
    console.Console().say(f"loading {folder}{f' and {judge}' if judge else ''} ...")
    with contextlib.nullcontext() if file is not None and output is not None else nothing_to_resume():
        from corpus.generate import stage

        opened = stage.load(folder, device=device, precision=precision)
        scorer = _scorer(judge, folder, config, device=device, precision=precision)
        if chat:
            conversation.warn_if_untuned(folder)
        if timings:
            _time(timed, opened, output or Path(f"timings-{name_of(folder)}"))
        elif talks:
            conversation.talk(opened, config, scorer)
        else:
            form = _form(pairs, chat=chat, translate=translate)
            _continue(config, opened, file, output, form, scorer, new_seed=seed is None)


def _check_modes(modes: dict[str, Any], prompts: Sequence[str], *, talks: bool, many: int) -> None:
    """What --chat, --shots and --translate ask of prompts."""
    chosen = [flag for flag, given in modes.items() if given]
    if modes["--chat"] and len(chosen) > 1:
        raise click.UsageError(f"{chosen[0]} and {chosen[1]} exclude each other")
    if chosen and not all(map(str.strip, prompts)):
        raise click.UsageError(f"--prompt must not be empty with {chosen[0]}")
    if talks and many > 1:
        raise click.UsageError("--num-samples must be 1 with --chat")


def _check_choice(many: int | None, reward: str | None, *, timings: bool) -> None:
    """--best-of and --reward need each other."""
    if many is not None and reward is None:
        raise click.UsageError("--best-of needs --reward, the model that chooses")
    if reward is not None and many is None:
        raise click.UsageError("--reward needs --best-of")
    if timings and many is not None:
        raise click.UsageError("--best-of and --timings exclude each other")


def _scorer(reward: Path | None, model: Path, config: Any, *, device: str, precision: str) -> Any:
    """The reward model of --best-of as a function; None without one."""
    from corpus.generate.best_of import kl_bound
    from corpus.pipeline.workflows.best_of import scorer

    if reward is None:
        return None
    found = scorer(reward, model, device=device, precision=precision)
    console.Console().say(
        f"best of {config.best_of}, at most {kl_bound(config.best_of):.2f} nats from one sample; "
        "no text is streamed, as the choice needs all of them"
    )
    return found


def _continue(
    config: Any, model: Any, prompts: Any, output: Path | None, form: Any, scorer: Any, *, new_seed: bool
) -> None:
    """Continue a file of prompts, or those of the configuration; with a scorer the best sample of each."""
    if prompts is not None:
        _sample_file(config, model, prompts, output, form, scorer=scorer, new_seed=new_seed)
    elif scorer is not None:
        _print_best(model, config, form, scorer)
    else:
        _print_samples(model, config, form)


def _print_best(model: Any, config: Any, form: Any, scorer: Any) -> None:
    """The best sample of each prompt, with the scores of all."""
    from corpus.generate import best_of

    progress = console.Console()
    for number, best in enumerate(best_of.samples(model, config, scorer, form=form, progress=progress), 1):
        if len(config.prompts) > 1:
            console.write(f"--- prompt {number}")
        console.write(best.prompt, end="\n" if form.begin else "")
        console.write(best.text)
        progress.say(f"{ending(best.finish, best.seed)}\n{conversation.scores_text(best.choice)}")


def _print_samples(model: Any, config: Any, form: Any) -> None:
    """Stream samples one after another: the prompt, its continuation, and how it ended."""
    from corpus.generate import stage

    many = len(config.prompts) * config.num_samples > 1
    opened: set[tuple[int, int]] = set()
    progress = console.Console()
    for piece in stage.in_order(stage.stream(model, config, form=form, progress=progress), config):
        if (piece.prompt, piece.sample) not in opened:
            opened.add((piece.prompt, piece.sample))
            if many:
                console.write(f"--- prompt {piece.prompt + 1}, sample {piece.sample + 1}")
            console.write(config.prompts[piece.prompt], end="\n" if form.begin else "")
        console.write(piece.text, end="")
        if piece.finish:
            console.write()
            progress.say(ending(piece.finish, config.seed))


def ending(finish: Finish, seed: int) -> str:
    """How long a sample is, how fast it was written, and what ended it."""
    return f"({finish.tokens} tokens, {finish.tokens_per_second:.0f} a second, ended by {finish.reason}, seed {seed})"


def _check_usage(modes: dict[str, Any], extras: dict[str, Any]) -> None:
    """At most one mode is given, and no flag of another mode."""
    chosen = [flag for flag, given in modes.items() if given not in {None, False, ()}]
    if len(chosen) > 1:
        raise click.UsageError(f"{chosen[0]} and {chosen[1]} exclude each other")
    for flag, given in extras.items():
        wanted = ("--prompts", "--timings") if flag == "--output" else ("--prompt", "--prompts")
        if given and not set(chosen) & set(wanted):
            raise click.UsageError(f"{flag} needs {' or '.join(wanted)}")


def _prompt_file(name: str, output: Path | None, *, blank: bool, scored: bool) -> PromptFile:
    """The prompts of a pipe, or of a file, which is checked first."""
    from corpus.generate.prompt_file import PromptFile

    if name == "-":
        return PromptFile(sys.stdin.buffer, blank=blank, scored=scored)
    path = Path(name).expanduser()
    prompts = PromptFile(path, blank=blank, scored=scored)
    if output is not None and output.exists() and prompts.is_file and output.samefile(path):
        raise click.UsageError("--output would overwrite the file of --prompts")
    prompts.check()
    return prompts


def _form(shots: Sequence[tuple[str, str]], *, chat: bool, translate: bool) -> Any:
    """The form of prompts: unchanged, questions of a conversation or after examples, or translations."""
    from corpus.generate.chat import FirstQuestion
    from corpus.generate.few_shot import PLAIN, answered
    from corpus.pipeline.templates import question_prompt, translation_prompt

    if chat:
        return FirstQuestion()
    if translate:
        return answered([(english, " ".join(chinese.split())) for english, chinese in shots], translation_prompt)
    return answered(shots, question_prompt) if shots else PLAIN


def _sample_file(
    config: Any, model: Any, prompts: Any, output: Path | None, form: Any, *, scorer: Any, new_seed: bool
) -> None:
    """Continue the prompts of a file into another file, or stream the results to standard output."""
    from corpus.generate import bulk

    progress = console.Console()
    if output is not None:
        if not output.parent.is_dir():
            progress.say(f"--output: {output.parent} is not there, and is made")
        done = bulk.run(config, model, prompts, output, form=form, scorer=scorer, new_seed=new_seed, progress=progress)
        kept = f", {done.kept:,} of them from before" if done.kept else ""
        speed = f"{done.tokens:,} tokens in {done.seconds:.1f} s, {done.tokens / max(done.seconds, 1e-3):,.0f} a second"
        console.write(f"{done.results:,} results{kept}; {speed}")
        console.write(f"results: {output}")
        return
    bar = progress.bar("sample", prompts.count and prompts.count * config.drawn, "samples")
    with contextlib.nullcontext() if sys.stdout.isatty() else bar:  # on a terminal it would break up the results
        for result in bulk.results(model, config, prompts, form=form, scorer=scorer, progress=progress):
            console.write(result.to_line(), end="")


def _time(config: Any, model: Any, folder: Path) -> None:
    """Measure, print and plot what a token costs."""
    from corpus.generate import benchmark as stage
    from corpus.pipeline.workspace.files import write_atomic

    measured = stage.measure(config, model, progress=console.Console())
    rows = [
        (
            point.position,
            f"{point.cached_s * 1e3:.1f} ms",
            f"{point.recomputed_s * 1e3:.1f} ms",
            f"{point.recomputed_s / point.cached_s:.1f} x",
            *(
                "?" if size is None else size_text(size)
                for size in (point.kept_bytes, point.cached_peak_bytes, point.recomputed_peak_bytes)
            ),
        )
        for point in measured.points
    ]
    times = ("position", "with\ncache", "without", "without/\nwith")
    console.table((*times, "keys and\nvalues", "peak\nwith", "peak\nwithout"), rows, left=0)
    speeds = [(row.batch_size, f"{row.tokens_per_second:,.0f}") for row in measured.throughput]
    console.table(("batch", "tokens/s"), speeds, left=0)
    write_atomic(folder / "timings.json", (json.dumps(measured.to_dict(), indent=2) + "\n").encode())
    write_atomic(folder / "timings.png", stage.picture(measured))
    console.write(f"timings: {folder / 'timings.json'}, {folder / 'timings.png'}")


def name_of(folder: Path) -> str:
    """A model's name from its folder; that of a checkpoint begins with the run's name."""
    whole = folder.resolve()
    inside = whole.name == "best" or whole.name.startswith("checkpoint-")
    return f"{whole.parent.name}-{whole.name}" if inside else whole.name
