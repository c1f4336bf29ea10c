"""Pushing a finished folder to the hub: an export, packed rows, a model or the tokenizer.

In: a folder with a ledger. Out: one commit in a repository, with the folder's outputs, its card and its ledger.
Invariants: only files that the ledger names, and that have its digests, are sent; nothing is sent before `upload`. A
file of the repository is deleted only where the ledger of the last push names it and this one does not. The token is
what `huggingface_hub` finds: HF_TOKEN, or that of `hf auth login`.
Cost: each file is hashed once, then sent; what the hub has is not sent again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from corpus.pipeline.errors import DamageError, PushError, WorkspaceError
from corpus.pipeline.manifest import Manifest, rights_of
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Ledger, output_changes, read_ledger
from corpus.pipeline.workspace.remote import fetched

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationCopy, HfApi

WHAT = {"documents": "export", "rows": "pack", "model": "train", "tokenizer": "tokenizer"}
"""What can be pushed, and the stage that makes it."""
CARD = "README.md"
_BESIDE = (CARD, "croissant.json", LEDGER)
_BATCH = 8
_REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class PushConfig:
    """What is pushed, and where to."""

    repo: str
    """OWNER/NAME on the hub."""
    what: str
    """A name in `WHAT`."""
    folder: Path
    """The finished folder."""
    public: bool = False
    """Whether a repository that is created now can be seen by everyone."""

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if not _REPO.fullmatch(self.repo):
            raise ValueError(f"--repo must be OWNER/NAME, is {self.repo}")
        if self.what not in WHAT:
            raise ValueError(f"--what must be one of {', '.join(WHAT)}, is {self.what}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Push:
    """What would be sent."""

    repo: str
    kind: str
    """`dataset` or `model`: the kind of the repository."""
    public: bool
    folder: Path
    what: str
    files: tuple[tuple[str, int], ...]
    """Path in the repository and bytes of each file."""
    card: str | None
    """The card, where the folder has none of its own."""
    datasets: tuple[Manifest, ...]
    """The datasets that it was made from."""

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size in self.files)


def plan(config: PushConfig, workspace: Workspace) -> Push:
    """What a push would send, after comparing every file with the ledger; sends nothing.

    Raises:
        WorkspaceError: the folder is not finished, holds something else, or has no card.
        DamageError: a file is not what the ledger says.

    """
    folder, stage = config.folder, WHAT[config.what]
    ledger = read_ledger(folder)
    if ledger is None or ledger.stage != stage:
        made = "nothing finished" if ledger is None else f"what `{ledger.stage}` made"
        raise WorkspaceError(f"{folder} holds {made}, not {config.what}", hint=f"Run `corpus {stage}` first.")
    for output in ledger.outputs:
        if not (folder / output.path).resolve().is_relative_to(folder.resolve()):
            raise DamageError(f"{folder / LEDGER} names a file outside its folder: {output.path}")
    for name, why in output_changes(ledger, folder, workspace.digest):
        raise DamageError(f"{folder / name} {why}", hint=f"Run `corpus {stage}` again: it makes damaged files anew.")
    fetched(folder, ledger.outputs)
    datasets = _datasets(workspace, ledger)
    card = _tokenizer_card(ledger, datasets) if config.what == "tokenizer" else None
    if card is None and not (folder / CARD).is_file():
        raise WorkspaceError(f"{folder} has no {CARD}", hint="Run `corpus card` first.")
    names = sorted({output.path for output in ledger.outputs} | {name for name in _BESIDE if (folder / name).is_file()})
    files = [(name, (folder / name).stat().st_size) for name in names]
    files += [(CARD, len(card.encode()))] if card else []
    return Push(
        repo=config.repo, kind="dataset" if config.what in {"documents", "rows"} else "model", public=config.public,
        folder=folder, what=config.what, files=tuple(files), card=card, datasets=datasets,
    )  # fmt: skip


def _datasets(workspace: Workspace, ledger: Ledger) -> tuple[Manifest, ...]:
    """The datasets that outputs were made from; one without a manifest is an error, since rights are shown."""
    named = {ledger.dataset, *ledger.config.get("datasets", ()), *ledger.counts.get("mixture", ())}
    known = workspace.datasets()
    return tuple(map(workspace.manifest, [*(name for name in known if name in named), *sorted(named - {None, *known})]))


def _tokenizer_card(ledger: Ledger, datasets: Sequence[Manifest]) -> str:
    names = ", ".join(ledger.config["datasets"])
    rights = "\n\n".join(f"### {each.name}\n\n{rights_of(each)}" for each in datasets)
    return (
        "---\nlanguage: zh\nlibrary_name: transformers\ntags:\n- corpus-zh\n- chinese\n- tokenizer\n---\n\n"
        f"# A tokenizer trained on {names}\n\n"
        f"Byte-level BPE with {ledger.counts['entries']:,} entries, made with corpus-zh. "
        "`AutoTokenizer.from_pretrained` opens it.\n\n"
        f"## Source and rights of the texts that it was trained on\n\n{rights}\n"
    )


def upload(push: Push, *, progress: Progress = SILENT) -> str:
    """Send what `plan` found as one commit; returns its address. The caller holds `workspace.writing()`.

    Raises:
        PushError: there is no token, or the hub refuses or cannot be reached; a rerun sends only what the hub lacks.

    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token  # noqa: PLC0415  # 0.3 s
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415  # as above

    if get_token() is None:
        raise PushError("no token for the hub", hint="Sign in with `hf auth login`, or put a token into HF_TOKEN.")
    disable_progress_bars()  # ours is shown
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    where: dict[str, Any] = {"repo_id": push.repo, "repo_type": push.kind}
    with _hub_errors(push):
        api.create_repo(**where, private=not push.public, exist_ok=True)
        additions = [
            CommitOperationAdd(name, push.card.encode() if push.card and name == CARD else push.folder / name)
            for name, _ in push.files
        ]
        gone = _outdated(api, push, where)
        with progress.bar(f"push: {push.repo}", push.bytes, "B"):
            for first in range(0, len(additions), _BATCH):
                api.preupload_lfs_files(**where, additions=additions[first : first + _BATCH], free_memory=False)
                progress.advance(sum(size for _, size in push.files[first : first + _BATCH]))
        if gone:
            progress.say(f"deleting {len(gone):,} files that only the last push had: {', '.join(gone[:3])}")
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [*additions]
        operations += [CommitOperationDelete(name) for name in gone]
        message = f"Push {push.what} with corpus-zh {version('corpus-zh')}"
        return str(api.create_commit(**where, operations=operations, commit_message=message).commit_url)


def _outdated(api: HfApi, push: Push, where: dict[str, Any]) -> list[str]:
    """Files of the repository that the ledger of the last push names, and this push does not."""
    present = set(api.list_repo_files(**where))
    if LEDGER not in present:
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(api.hf_hub_download(**where, filename=LEDGER, local_dir=folder))
        try:
            named = {output["path"] for output in json.loads(path.read_bytes())["outputs"]}
        except (ValueError, TypeError, KeyError):
            return []  # not a ledger of ours, so not our files
    return sorted(named & present - {name for name, _ in push.files})


@contextlib.contextmanager
def _hub_errors(push: Push) -> Iterator[None]:
    """Turn what the client raises into PushErrors."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled  # noqa: PLC0415  # only an upload needs it

    transport = cast(type[Exception], HfHubHTTPError.__bases__[0])  # HTTPError of the client's HTTP library
    again = "Run the same command again: it sends only what the hub lacks."
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise PushError("HF_HUB_OFFLINE forbids to reach the hub", hint="Unset it, and run again.") from error
    except HfHubHTTPError as error:
        hints = {
            401: "The hub does not know the token: sign in with `hf auth login`, or set HF_TOKEN.",
            403: f"The token may not write {push.repo}: it needs the role `write`, and OWNER must be you or yours.",
            404: f"{push.repo} is not there, or the token may not see it.",
        }
        hint = hints.get(error.response.status_code, again)
        raise PushError(f"the hub refuses {push.repo}: {_first_line(error)}", hint=hint) from error
    except (transport, EntryNotFoundError) as error:  # the latter when a file could not be fetched
        raise PushError(f"the hub cannot be reached: {_first_line(error)}", hint=again) from error
    except ValueError as error:  # the card's metadata, or a file
        raise PushError(f"the hub refuses {push.repo}: {' '.join(str(error).split())}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def rights(datasets: Sequence[Manifest]) -> Iterator[tuple[str, str]]:
    """Datasets, and their source, licence and what is open about it; those with the same once."""
    found: dict[str, list[str]] = {}
    for each in datasets:
        text = rights_of(each).replace("**", "").replace("\n\n", " ")
        found.setdefault(text, []).append(each.name)
    for text, names in found.items():
        yield ", ".join(names), text
