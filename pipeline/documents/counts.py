"""Counts of a documents stage: records read, kept and dropped by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from corpus.pipeline.errors import BooksError


@dataclass(slots=True)
class Counts:
    """Counts of a piece, or of all pieces."""

    records: int = 0
    documents: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    cleaned: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)

    def add(self, other: Counts) -> None:
        """Add the counts of another piece."""
        self.records += other.records
        for name in ("documents", "characters", "dropped", "cleaned", "masked"):
            getattr(self, name).update(getattr(other, name))

    def check(self, where: str) -> None:
        """Raise BooksError unless every record was kept or dropped with a reason."""
        kept, dropped = self.documents.total(), self.dropped.total()
        if self.records != kept + dropped:
            raise BooksError(f"{where}: {self.records:,} records are not {kept:,} documents + {dropped:,} dropped")

    def to_dict(self) -> dict[str, Any]:
        """The counts in the ledger's form."""
        return {
            "records": self.records,
            "documents": self.documents.total(),
            "splits": dict(sorted(self.documents.items())),
            "dropped": dict(sorted(self.dropped.items())),
            "cleaned": dict(sorted(self.cleaned.items())),
            "masked": dict(sorted(self.masked.items())),
            "characters": dict(sorted(self.characters.items())),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Counts:
        """The inverse of `to_dict`."""
        return cls(
            records=values["records"],
            documents=Counter(values["splits"]),
            characters=Counter(values["characters"]),
            dropped=Counter(values["dropped"]),
            cleaned=Counter(values["cleaned"]),
            masked=Counter(values["masked"]),
        )
