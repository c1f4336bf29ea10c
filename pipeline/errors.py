"""Every failure a user can cause, as one tree; `corpus.pipeline.cli.main.main` catches it.

The command then exits with 1 and shows what happened, where, and what to type next.
"""

from __future__ import annotations


class CorpusError(Exception):
    """What happened and where; `hint` says what to do or type next, and may be empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ManifestError(CorpusError):
    """A manifest has an unknown key, a missing key or a wrong type."""


class TaskError(CorpusError):
    """A task file is malformed, or the data are not what it says."""


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
    """Another command is writing in this workspace, or in the folder of an export."""


class DiskError(CorpusError):
    """No room, no permission, a read-only or failing disk."""


class StoreError(CorpusError):
    """A remote storage refuses a request or cannot be reached, or an object there is not what it should be."""


class ObjectMissingError(StoreError):
    """A storage has no object of this key."""


class WorkerError(CorpusError):
    """A worker process died."""


class EngineError(CorpusError):
    """The engine of a command is not installed, cannot be reached, or has a node that would write other bytes."""


class BooksError(CorpusError):
    """The books of a stage do not balance: a bug in this program."""


class DamageError(CorpusError):
    """A finished file is not what its ledger says."""


class ExportError(CorpusError):
    """A folder cannot take an export, or a format cannot hold the tokens."""


class PushError(CorpusError):
    """The hub refuses a push, or cannot be reached."""


class TokenizerError(CorpusError):
    """The tokenizer is missing, unreadable or not the one the rows were packed with."""


class TrainError(CorpusError):
    """Training cannot start or continue."""


class PeerError(TrainError):
    """Another process of the run cannot be reached."""


class DeviceError(CorpusError):
    """The machine lacks the device asked for, or the device is out of memory."""


class ModelError(CorpusError):
    """A folder does not hold a model that can be loaded safely."""


class PromptError(CorpusError):
    """A file of prompts or examples is empty or has an invalid line."""


class ServeError(CorpusError):
    """The server cannot start: its address, its keys or a package."""


class BenchmarkError(CorpusError):
    """A benchmark cannot be measured: its prompt, its items or its harness is missing or does not fit."""
