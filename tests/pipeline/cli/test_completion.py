"""Completion as shells ask for it: Click's protocol in a real process, and the documented line in a real shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from corpus.pipeline.manifest import DATASETS
from tests.support.command import CORPUS
from tests.support.records import ROOT

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def offered(folder: Path, line: str, **environment: str) -> list[str]:
    """What is offered for the last word of a line, as `type,value`."""
    asked = {"_CORPUS_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    done = subprocess.run(
        [CORPUS],
        cwd=folder,
        env=os.environ | asked | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return [line for line in done.stdout.splitlines() if line]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A workspace with two runs, one of them with checkpoints."""
    for name in ("first/best", "first/checkpoint-20", "first/other", "第二次"):
        (tmp_path / "workspace" / "models" / name).mkdir(parents=True)
    return tmp_path


def test_commands_and_datasets(place: Path) -> None:
    assert offered(place, "corpus tr") == ["plain,train", "plain,trace"]
    assert offered(place, "corpus ingest --dataset ") == [f"plain,{name}" for name in DATASETS]
    assert offered(place, "corpus train --dataset b") == ["plain,baike2018qa"]
    assert "plain,gpt3-175b" in offered(place, "corpus train --model gpt3")
    assert offered(place, "corpus train --model qwen/con") == ["file,qwen/con"]
    assert "plain,--json" in offered(place, "corpus pack --j")


@pytest.mark.parametrize(
    "command", ["sample --model", "evaluate --model", "train --init", "train --run"]
)  # each at its own option
def test_runs(place: Path, command: str) -> None:
    assert offered(place, f"corpus {command} ") == ["plain,first", "plain,第二次"]
    assert offered(place, f"corpus {command} first/") == ["plain,first/best", "plain,first/checkpoint-20"]
    other = "dir,/tmp" if "--run" not in command else None
    assert offered(place, f"corpus {command} /tmp") == ([other] if other else [])


def test_the_workspace_may_be_elsewhere(place: Path) -> None:
    (place / "elsewhere/models/third").mkdir(parents=True)
    assert offered(place, "corpus evaluate --workspace elsewhere --model ") == ["plain,third"]
    assert offered(place, "corpus evaluate --model ", CORPUS_WORKSPACE="elsewhere") == ["plain,third"]
    assert offered(place, "corpus train --workspace nowhere --run ") == []


@pytest.mark.parametrize("line", ["corpus evaluate --model ", "corpus train --model ", "corpus ingest --dataset "])
def test_completing_loads_nothing_heavy(place: Path, line: str) -> None:
    code = (
        "import sys\n"
        "from corpus.pipeline.cli.main import main\n"
        "try: main([])\n"
        "except SystemExit as leave: assert leave.code == 0, leave.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'tokenizers', 'rich', 'numpy', 'httpx'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    asked = {"_CORPUS_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("plain,")


def test_the_documented_line_installs_it(place: Path) -> None:
    shells = {
        "bash": "source ~/.bashrc; COMP_WORDS=(corpus ingest --dataset w); COMP_CWORD=3; _corpus_completion corpus; "
        'printf "%s\\n" "${COMPREPLY[@]}"',
        "zsh": "autoload -U compinit; compinit -u; source ~/.zshrc; words=(corpus ingest --dataset w); CURRENT=4; "
        'compadd() { print -l "${(@P)@[-1]}" }; _corpus_completion',
        "fish": 'source ~/.config/fish/config.fish; complete -C "corpus ingest --dataset w"',
    }
    text = (ROOT / "docs" / "terminal.md").read_text(encoding="utf-8")
    typed = dict(zip(shells, re.findall(r"^(echo '.*_CORPUS_COMPLETE.*?) +# ", text, re.MULTILINE), strict=True))
    (place / ".config" / "fish").mkdir(parents=True)
    environment = os.environ | {"HOME": str(place), "ZDOTDIR": str(place), "PATH": PATH}
    for shell in filter(shutil.which, shells):  # bash at least
        for command in (typed[shell], shells[shell]):
            done = subprocess.run(
                [shell, "-c", command],
                cwd=place,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
        assert sorted(done.stdout.split()) == ["webtext2019zh", "wiki2019zh"], shell
