"""`corpus serve`: an OpenAI-compatible server. Heavy modules are imported inside the command."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from corpus.pipeline.cli import completion
from corpus.pipeline.cli.options import config_of, model_folder, nothing_to_resume, workspace_of, workspace_option
from corpus.pipeline.cli.sample import name_of
from corpus.pipeline.terminal import console


@click.command()
@click.option(
    "--model", metavar="DIR", shell_complete=completion.models,
    help="A run's name, or a model's folder.  [default: the newest run, those of tasks and reward models left out]",
)  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option("--port", type=int, default=8000, show_default=True, metavar="N", help="Port; 0 takes a free one.")
@click.option(
    "--api-key-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Keys that clients must send, one a line; needed where --host is reached by other machines.",
)  # fmt: skip
@click.option("--batch-size", default=16, show_default=True, metavar="N", help="Most answers written at once.")
@click.option(
    "--queue", default=64, show_default=True, metavar="N", help="Most requests that wait; more get status 429."
)
@click.option("--max-seconds", default=600.0, show_default=True, metavar="S", help="Most time of one request.")
@click.option("--access-log", is_flag=True, help="Report each request in one line, without its text.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps", "xpu"]), default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@workspace_option()
def serve(model: str | None, workspace_dir: Path, device: str, precision: str, **settings: Any) -> None:
    """Serve a model to OpenAI's clients, and a page to chat in.

    Answers are written side by side, each as `corpus sample` would write it alone. Needs the extra `serve`:
    pip install 'corpus-zh[serve]'. See docs/serve.md. Ctrl-C ends open answers and the server.

    \b
    Examples:
      corpus serve --model my-tuned-run
      corpus serve --model my-tuned-run --port 0 --access-log
      corpus serve --host 0.0.0.0 --api-key-file keys.txt
      curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' -d '{"prompt": "秋天的山里"}'
    """
    from corpus.generate.serve.config import ServeConfig
    from corpus.pipeline.errors import ServeError

    config = config_of(ServeConfig, **settings)
    folder = model_folder(workspace_of(workspace_dir), model, of_task=False)
    progress = console.Console()
    if missing := [package for package in ("starlette", "uvicorn") if find_spec(package) is None]:
        raise ServeError(
            f"corpus serve needs the package {missing[0]}", hint="Install it with `pip install 'corpus-zh[serve]'`."
        )
    with nothing_to_resume():
        from corpus.generate.serve import server

        server.run(
            config, folder, name_of(folder), device=device, precision=precision, report=progress.say,
            listening=lambda url: console.write(f"serving {name_of(folder)} at {url}  (Ctrl-C ends it)"),
        )  # fmt: skip
