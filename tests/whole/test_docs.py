"""The documentation is true: both READMEs' commands run as written, and the generated page is current."""

from __future__ import annotations

import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import forked
from tests.support.command import CORPUS
from tests.support.records import ROOT

ENGLISH, CHINESE = (ROOT / name for name in ("README.md", "README.zh-CN.md"))
NEED_TORCH = ("train", "evaluate", "sample")
DEMO = ROOT / "manifests" / "demo"


def blocks(path: Path, language: str) -> list[str]:
    found: list[str] = re.findall(
        rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return found


def commands(path: Path) -> list[str]:
    """The commands of all blocks in order, comments off."""
    return [line.split("  #")[0].strip() for block in blocks(path, "sh") for line in block.splitlines() if line.strip()]


def test_both_readmes_tell_the_same_commands() -> None:
    assert commands(ENGLISH) == commands(CHINESE)
    assert blocks(ENGLISH, "python") == blocks(CHINESE, "python")
    assert CHINESE.name in ENGLISH.read_text(encoding="utf-8")


def test_the_two_commands_are_those_of_ci() -> None:
    makes = [line for line in commands(ENGLISH) if line.startswith("make")]
    ci = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make")]
    assert makes == ["make demo", "make test"]
    assert ci == [*makes, "make check"]


def test_the_generated_page_is_current() -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], check=True)


def test_links_lead_somewhere() -> None:
    for page in (ENGLISH, CHINESE, *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def baike() -> list[dict[str, str]]:
    return [json.loads(line) for line in (DEMO / "baike.json").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """A hub on this machine that offers baike2018qa as the re-upload does."""
    folder = tmp_path / "hub" / "datasets/shaowenchen/baikeqa_zh/resolve/main/data"
    folder.mkdir(parents=True)
    records = baike()
    pq.write_table(pa.Table.from_pylist(records[:40]), folder / "train-baikeqa_zh.parquet")
    pq.write_table(pa.Table.from_pylist(records[40:]), folder / "valid-baikeqa_zh.parquet")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "hub"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def archive() -> bytes:
    """The official archive in small."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in baike()]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("baike_qa_train.json", "".join(lines[:40]))
        packed.writestr("baike_qa_valid.json", "".join(lines[40:]))
    return out.getvalue()


def words(command: str, environment: dict[str, str]) -> list[str]:
    """The arguments of `corpus` in a command, as the shell reads them."""
    printed = subprocess.check_output(
        ["bash", "-c", f"corpus() {{ printf '%s\\0' \"$@\"; }}; {command}"], env=environment, text=True
    )
    return printed.split("\0")[:-1]


def run_forked(arguments: list[str | Path], shown: str, folder: Path, environment: dict[str, str]) -> None:
    """Run a command or script in a process that has imported torch; the hub's address is not among what it needs."""
    known = {name: value for name, value in environment.items() if name != "HF_ENDPOINT"}
    done = forked.run(arguments, cwd=folder, env=known, torch=True, timeout=400)
    assert done.returncode == 0, f"{shown}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"


def test_the_readmes_commands_run_as_written(tmp_path: Path, hub: str) -> None:
    """All but the installation, which `make check` tries, and make itself, which runs this test."""
    home = tmp_path / "home"
    (home / "Downloads").mkdir(parents=True)
    (home / "Downloads" / "baike2018qa.zip").write_bytes(archive())
    (tmp_path / "my-texts").mkdir()
    for number in range(30):
        text = f"# 第{number}篇\n\n写的是第{number}件小事，从早说到晚，也就这么几句话。\n"
        (tmp_path / "my-texts" / f"{number}.md").write_text(text, encoding="utf-8")
    (tmp_path / "questions.txt").write_text("春天为什么会下雨？\n纸是怎样做成的？\n", encoding="utf-8")
    nowhere = "http://127.0.0.1:9"  # every host but this one is out of reach, wherever the test runs
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    proxies = {"http_proxy": nowhere, "https_proxy": nowhere, "all_proxy": nowhere, "no_proxy": "127.0.0.1"}
    environment = os.environ | proxies | {"HOME": str(home), "PATH": path, "HF_ENDPOINT": hub, "OMP_NUM_THREADS": "1"}
    run = partial(
        subprocess.run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    for command in commands(ENGLISH):
        if command.startswith(("make ", "pip ")):
            continue
        assert command.startswith("corpus ")
        if command.split()[1] in NEED_TORCH:
            run_forked([CORPUS, *words(command, environment)], command, tmp_path, environment)
        else:
            done = run(["bash", "-c", command], check=False)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    opens = (
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
        "M.from_pretrained({0}); T.from_pretrained({0})"
    )
    models = [opens.format(repr(str(model))) for model in (tmp_path / "workspace" / "models").iterdir()]
    assert len(models) == 5
    script = tmp_path / "script.py"
    for code in (*blocks(ENGLISH, "python"), "\n".join(models)):
        script.write_text(code, encoding="utf-8")  # a file, as users have one: worker processes import it
        run_forked([script], code, tmp_path, environment)
    shown = run(["find", "workspace", "-maxdepth", "2"], check=True).stdout
    for line in re.findall(r"^[├└]── (\S+?)/ ", "\n".join(blocks(ENGLISH, "")), re.MULTILINE):
        assert f"workspace/{line}" in shown or line.startswith("models/")
