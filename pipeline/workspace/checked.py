"""Finished files, compared with their ledger before they are read.

In: a workspace, and one of its stage folders or files. Out: the same, or a DamageError that names the file, what its
ledger says of it, and the command that rebuilds it.
Invariants: readers and `corpus verify` say the same of the same damage; a file that no ledger lists is not read.
Cost: a stat for each file that is unchanged since it was hashed, else SHA-256 of it, up to some seconds a GB.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from corpus.pipeline.errors import DamageError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace.files import sha256_file
from corpus.pipeline.workspace.layout import RANKING, ROWS, SINGLE, Workspace
from corpus.pipeline.workspace.ledger import COMMANDS, LEDGER, FileDigest, read_ledger
from corpus.pipeline.workspace.remote import fetched

_IN_SHARDS = {"raw", "documents", "packed", "chat"}
"""Areas whose commands keep the files that are whole."""
EXPORT = "export"
"""An export, which lies outside the workspace: its folder is no area."""
NOTICEABLE_BYTES = 1 << 30
"""From here on a bar shows what is hashed."""
_READERS = 4
_SHOWN_DIGITS = 12


def damage(area: str, folder: Path, path: Path, what: str, *, delete: bool = True) -> DamageError:
    """The error for a file of a stage in `folder`; `delete` says whether the file itself is at fault."""
    command = export_command(folder) if area == EXPORT else COMMANDS[area].format(name=folder.name)
    if area in {*ROWS.values(), RANKING} and (ledger := read_ledger(folder)) and "seq_length" in ledger.config:
        command += f" --seq-length {ledger.config['seq_length']}"  # another length would make all rows anew
    if area == "models":
        again = f"Run `{command} --run {folder.name}` again, with the run's other flags, to rebuild it."
        return DamageError(f"{path} {what}", hint=again)
    if not path.exists() or not delete:
        return DamageError(f"{path} {what}", hint=f"Run `{command}` to rebuild it.")
    kept = ": only missing files are rebuilt" if area in _IN_SHARDS else ""
    return DamageError(f"{path} {what}", hint=f"Delete it and run `{command}`{kept}.")


def export_command(folder: Path) -> str:
    """The command that made an export, by its ledger; the workspace is that of the command."""
    ledger = read_ledger(folder)
    config = ledger.config if ledger else {}
    words = ["--format", config.get("format", "FORMAT")]
    words += ["--form", "chat"] if config.get("form") == "chat" else []
    for flag, key in (("--dataset", "datasets"), ("--split", "splits")):
        words += [word for value in config.get(key, ()) for word in (flag, value)]
    return f"corpus export {shlex.join(map(str, [*words, folder]))}"


def check_size(area: str, folder: Path, output: FileDigest) -> None:
    """Raise DamageError where an output is missing or has another size."""
    path = folder / output.path
    if not path.is_file():
        raise damage(area, folder, path, "is missing")
    if path.stat().st_size != output.bytes:
        size = f"has {path.stat().st_size:,} bytes, its ledger says {output.bytes:,}"
        raise damage(area, folder, path, size)


def check_bytes(area: str, folder: Path, output: FileDigest, found: str | None = None) -> None:
    """Raise DamageError where an output has other bytes; `found` is its SHA-256, computed when None."""
    path = folder / output.path
    found = found or sha256_file(path)
    if found != output.sha256:
        digests = f"SHA-256 {found[:_SHOWN_DIGITS]}..., not {output.sha256[:_SHOWN_DIGITS]}..."
        raise damage(area, folder, path, f"has other bytes than its ledger says ({digests})")


def check_all(
    workspace: Workspace, folder: Path, outputs: Sequence[FileDigest], progress: Progress = SILENT,
    noticeable: int = NOTICEABLE_BYTES,
) -> None:  # fmt: skip
    """Compare outputs of a stage with its ledger; a bar is shown where `noticeable` bytes or more are hashed.

    Raises:
        DamageError: a file is missing, or has another size or other bytes.

    """
    area = _place(workspace, folder)[0]
    fetched(folder, outputs, progress)
    for output in outputs:
        check_size(area, folder, output)
    new = [output for output in outputs if not workspace.knows(folder / output.path)]
    size = sum(output.bytes for output in new)
    shown = progress if size >= noticeable else SILENT
    with shown.bar(f"checking {workspace.relative(folder)}", size, "B"), ThreadPoolExecutor(_READERS) as pool:
        for output, _ in zip(new, pool.map(lambda each: workspace.digest(folder / each.path), new), strict=True):
            shown.advance(output.bytes)
    for output in outputs:
        check_bytes(area, folder, output, workspace.digest(folder / output.path))


def checked(workspace: Workspace, path: Path) -> Path:
    """The path of an output, once it was compared with the ledger of its stage; for readers that open a few files.

    A stage without a ledger is not finished, and its files are not compared: what is there under its name is whole.

    Raises:
        DamageError: the file is missing, has other bytes, or is not in the ledger.

    """
    area, folder = _place(workspace, path)
    outputs = _outputs(folder)
    if outputs is None:
        return path
    output = outputs.get(path.relative_to(folder).as_posix())
    if output is None:
        raise DamageError(f"{path} is not in the ledger of {workspace.relative(folder)}", hint="Move it elsewhere.")
    fetched(folder, [output])
    check_size(area, folder, output)
    check_bytes(area, folder, output, workspace.digest(path))
    return path


def bring(workspace: Workspace, folder: Path) -> None:
    """Bring the outputs of a finished stage that lie in a folder, of a workspace in a storage; elsewhere nothing."""
    if workspace.remote is None:
        return
    _, stage = _place(workspace, folder)
    outputs = (_outputs(stage) or {}).values()
    fetched(stage, [output for output in outputs if (stage / output.path).parent == folder])


def bring_model(workspace: Workspace, folder: Path) -> Path:
    """The folder of a model, once all outputs of its run are here; a model elsewhere is left as it is."""
    if workspace.remote is not None and folder.is_relative_to(workspace.models) and folder != workspace.models:
        _, run = _place(workspace, folder)
        fetched(run, (_outputs(run) or {}).values())
    return folder


def bring_all(workspace: Workspace, areas: Sequence[str], progress: Progress = SILENT) -> None:
    """Bring all outputs of finished stages in some areas, of a workspace in a storage; elsewhere nothing."""
    for area in areas if workspace.remote is not None else ():
        root = workspace.root / area
        for folder in [root] if area in SINGLE else [root / name for name in workspace.finished(area)]:
            fetched(folder, (_outputs(folder) or {}).values(), progress)


def present(workspace: Workspace, path: Path) -> FileDigest | None:
    """A file of the workspace as it is now; in a storage, where it may not be here, as the ledger of its stage says."""
    if workspace.remote is not None:
        _, folder = _place(workspace, path)
        output = (_outputs(folder) or {}).get(path.relative_to(folder).as_posix())
        if output is not None:
            return FileDigest(workspace.relative(path), output.bytes, output.sha256)
    return workspace.file_digest(path) if path.is_file() else None


def _place(workspace: Workspace, path: Path) -> tuple[str, Path]:
    """Area and stage folder of a path in a workspace."""
    area, *rest = path.relative_to(workspace.root).parts
    return area, workspace.root / area if area in SINGLE else workspace.root / area / rest[0]


def _outputs(folder: Path) -> Mapping[str, FileDigest] | None:
    """The outputs that a folder's ledger lists, by path; None without a ledger."""
    try:
        stat = (folder / LEDGER).stat()
    except OSError:
        return None
    return _read_outputs(folder, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=16)
def _read_outputs(folder: Path, _mtime_ns: int, _inode: int) -> Mapping[str, FileDigest] | None:
    """`_outputs` for one version of the ledger: a dataset's can list thousands of shards."""
    ledger = read_ledger(folder)
    return {output.path: output for output in ledger.outputs} if ledger else None
