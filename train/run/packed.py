"""What objectives read of `packed/`, `chat/` and `ranking/`: ledgers, compared with their files and the tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tokenizers import Tokenizer

from corpus.pipeline.errors import TokenizerError, WorkspaceError
from corpus.pipeline.progress import Progress
from corpus.pipeline.tokenizer import files
from corpus.pipeline.workspace.checked import check_all, checked
from corpus.pipeline.workspace.layout import RANKING, ROWS, Workspace
from corpus.pipeline.workspace.ledger import Ledger, read_ledger
from corpus.train.config import TrainConfig

AREAS = {"text": ROWS["text"], "sft": ROWS["chat"]}
"""Folder of the rows of each objective that reads rows."""
PACK = {"packed": "corpus pack", "chat": "corpus pack --form chat", RANKING: "corpus pack --form ranking"}
"""What makes the rows of an area."""


def vocabulary(workspace: Workspace) -> Tokenizer:
    """The workspace's tokenizer, once it was compared with its ledger."""
    path = workspace.tokenizer / "tokenizer.json"
    return files.load(checked(workspace, path).parent if path.exists() else workspace.tokenizer)


def special(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token."""
    number = tokenizer.token_to_id(token)
    if number is None:
        raise TokenizerError(f"the tokenizer has no {token}", hint="Run `corpus tokenizer` again.")
    return number


def ledgers(
    config: TrainConfig, workspace: Workspace, area: str, progress: Progress, later: Collection[str] = ()
) -> dict[str, Ledger]:
    """The ledgers of the datasets that a run reads, their files compared with them, but those that come `later`."""
    pack = PACK[area]
    names = sorted(config.mixture) or workspace.finished(area)
    if not names:
        what = "rankings" if area == RANKING else f"{area} rows"
        raise WorkspaceError(f"{workspace.shown} holds no {what}", hint=f"Run `{pack}` first.")
    found = {}
    for name in names:
        folder = workspace.root / area / name
        ledger = read_ledger(folder)
        if ledger is None:
            raise WorkspaceError(f"{name} is not packed", hint=f"Run `{pack} --dataset {name}` first.")
        there = [output for output in ledger.outputs if f"{area}/{name}/{output.path}" not in later]
        check_all(workspace, folder, there, progress)
        found[name] = ledger
    return found


def check_tokenizers(found: Mapping[str, Ledger], workspace: Workspace, area: str) -> None:
    """Refuse rows of another tokenizer than the workspace's."""
    path = workspace.tokenizer / "tokenizer.json"
    ours = workspace.digest(path)
    for name, ledger in found.items():
        theirs = {entry.path: entry.sha256 for entry in ledger.inputs}.get(workspace.relative(path), "none")
        if theirs != ours:
            raise TokenizerError(
                f"{name} was packed with the tokenizer {theirs[:12]}, the workspace holds {ours[:12]}",
                hint=f"Run `{PACK[area]} --dataset {name}` again.",
            )
