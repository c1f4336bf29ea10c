"""Build the wheel, install it without extras into a fresh environment, and use it from another folder.

Run by `make check`, not by pytest: it installs everything a user would.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
NEEDED = {
    "corpus/pipeline/cli/main.py", "corpus/train/__init__.py", "corpus/generate/__init__.py",
    "corpus/pipeline/py.typed",
    "corpus/manifests/demo.toml", "corpus/manifests/wiki2019zh.toml", "corpus/manifests/demo/wiki.json",
    "corpus/manifests/tasks/ocnli.toml", "corpus/manifests/tasks/demo/choice.jsonl",
    "corpus/pipeline/report/page.html", "corpus/pipeline/report/page.css", "corpus/pipeline/report/page.js",
    "corpus/pipeline/report/words.toml",
}  # fmt: skip
KERNELS = "corpus/pipeline/kernels/_kernels.abi3.so"


def built() -> bool:
    """Whether the kernels were built in this environment, by the same compiler."""
    return importlib.util.find_spec("corpus.pipeline.kernels._kernels") is not None


def main() -> None:
    """Fail with a message, or say what was seen."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--outdir", place, ROOT], check=True, stdout=subprocess.DEVNULL
        )
        (wheel,) = place.glob("*.whl")
        names = set(zipfile.ZipFile(wheel).namelist())
        tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
        assert tops == {"corpus"}, f"the wheel's top-level names are {sorted(tops)}"
        assert names >= NEEDED, f"the wheel lacks {sorted(NEEDED - names)}"
        assert (KERNELS in names) == built(), "the wheel holds the kernels where they can be built, and only there"
        venv.create(place / "venv", with_pip=True)
        python = place / "venv" / "bin" / "python"
        install: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-c",
            ROOT / "constraints.txt",
            wheel,
        ]
        subprocess.run(install, check=True)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        corpus = place / "venv" / "bin" / "corpus"
        for arguments in (
            ["--help"],
            ["datasets"],
            ["ingest", "--dataset", "demo"],
            ["pack", "--dataset", "demo"],
            ["report"],
        ):
            subprocess.run([corpus, *arguments], check=True, cwd=place, env=clean, stdout=subprocess.DEVNULL)
        imports = "import corpus.train.run.stage, corpus.generate.stage"
        subprocess.run([python, "-c", imports], check=True, cwd=place, env=clean)
        print(
            f"{wheel.name}: {len(names)} files, installs without extras, ingests, packs and shows the built-in dataset"
        )


if __name__ == "__main__":
    main()
