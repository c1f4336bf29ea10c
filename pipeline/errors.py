"""Every failure a user can cause, as one tree with one boundary (`corpus.pipeline.cli.main.main`).

CorpusError                  exit 1: what happened, where, and what to type next
├── ManifestError            a manifest has an unknown key, a wrong type or a missing one
├── SourceError              the place given with --source does not hold what the manifest names
├── DownloadError            no mirror gave the file whole
│   └── ChecksumError        the bytes came, but they are not the expected ones
├── ArchiveError             an archive is damaged, encrypted, unsafe, or holds something else
├── ShapeError               nearly all records of a file are not what the manifest describes
├── WorkspaceError           the workspace lacks what a stage needs
│   └── BusyError            another command is writing in this workspace
├── DiskError                no room, no permission, a read-only or failing disk
├── WorkerError              a worker process died
├── BooksError               the books of a stage do not balance: a defect of ours, never to be ignored
├── DamageError              a finished file is not what its ledger says
├── TokenizerError           the tokenizer is missing, unreadable or not the one the rows were packed with
├── TrainError               training cannot start or go on
├── DeviceError              the machine lacks the device asked for, or the device is out of memory
├── ModelError               a folder does not hold a model that can be loaded safely
└── PromptError              a file of prompts or examples has a line that is none, or holds none at all
"""

from __future__ import annotations


class CorpusError(Exception):
    """A failure with a name. `hint` says what to do or type next; empty when there is nothing to say."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way back from a worker process with the hint."""
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[CorpusError], message: str, hint: str) -> CorpusError:
    return kind(message, hint=hint)


class ManifestError(CorpusError):
    """A manifest has an unknown key, a wrong type or a missing one."""


class SourceError(CorpusError):
    """The place given with --source does not hold what the manifest names."""


class DownloadError(CorpusError):
    """No mirror gave the file whole."""


class ChecksumError(DownloadError):
    """The bytes came, but they are not the expected ones."""


class ArchiveError(CorpusError):
    """An archive is damaged, encrypted, unsafe, or holds something else."""


class ShapeError(CorpusError):
    """Nearly all records of a file are not what the manifest describes."""


class WorkspaceError(CorpusError):
    """The workspace lacks what a stage needs."""


class BusyError(WorkspaceError):
    """Another command is writing in this workspace."""


class DiskError(CorpusError):
    """No room, no permission, a read-only or failing disk."""


class WorkerError(CorpusError):
    """A worker process died."""


class BooksError(CorpusError):
    """The books of a stage do not balance."""


class DamageError(CorpusError):
    """A finished file is not what its ledger says."""


class TokenizerError(CorpusError):
    """The tokenizer is missing, unreadable or not the one the rows were packed with."""


class TrainError(CorpusError):
    """Training cannot start or go on."""


class DeviceError(CorpusError):
    """The machine lacks the device asked for, or the device is out of memory."""


class ModelError(CorpusError):
    """A folder does not hold a model that can be loaded safely."""


class PromptError(CorpusError):
    """A file of prompts or examples has a line that is none, or holds none at all."""
