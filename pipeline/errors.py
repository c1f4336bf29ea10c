"""Every failure a user can cause, as one tree; `corpus.pipeline.cli.main.main` catches it.

CorpusError                  exit 1: what happened, where, and what to type next
├── ManifestError            a manifest has an unknown key, a missing key or a wrong type
├── SourceError              --source does not hold the files that the manifest names
├── DownloadError            no mirror delivered the file whole
│   └── ChecksumError        a file has another digest than expected
├── ArchiveError             an archive is damaged, encrypted or unsafe, or holds other files
├── ShapeError               nearly all records of a file differ from the manifest's shape
├── WorkspaceError           the workspace lacks what a stage needs
│   └── BusyError            another command is writing in this workspace
├── DiskError                no room, no permission, a read-only or failing disk
├── WorkerError              a worker process died
├── BooksError               the books of a stage do not balance: a bug in this program
├── DamageError              a finished file is not what its ledger says
├── TokenizerError           the tokenizer is missing, unreadable or not the one the rows were packed with
├── TrainError               training cannot start or continue
├── DeviceError              the machine lacks the device asked for, or the device is out of memory
├── ModelError               a folder does not hold a model that can be loaded safely
└── PromptError              a file of prompts or examples is empty or has an invalid line
"""

from __future__ import annotations


class CorpusError(Exception):
    """A failure; `hint` says what to do or type next, and may be empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the hint, for errors from worker processes."""
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[CorpusError], message: str, hint: str) -> CorpusError:
    return kind(message, hint=hint)


class ManifestError(CorpusError):
    """A manifest has an unknown key, a missing key or a wrong type."""


class SourceError(CorpusError):
    """`--source` does not hold the files that the manifest names."""


class DownloadError(CorpusError):
    """No mirror delivered the file whole."""


class ChecksumError(DownloadError):
    """A file has another digest than expected."""


class ArchiveError(CorpusError):
    """An archive is damaged, encrypted or unsafe, or holds other files."""


class ShapeError(CorpusError):
    """Nearly all records of a file differ from the manifest's shape."""


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
    """Training cannot start or continue."""


class DeviceError(CorpusError):
    """The machine lacks the device asked for, or the device is out of memory."""


class ModelError(CorpusError):
    """A folder does not hold a model that can be loaded safely."""


class PromptError(CorpusError):
    """A file of prompts or examples is empty or has an invalid line."""
