"""Manifests: where a dataset comes from, what its records hold and how a record becomes a document.

`schema` has the values, `table` checks TOML, `parse` reads a manifest, `rights` states its licence. `load` gives the
manifests in the package; those that a user brought are in a workspace, see `Workspace.manifest`.
"""

from corpus.pipeline.manifest.parse import BUILT_IN, CORPORA, DATASETS, NAME, load, parse, parse_file
from corpus.pipeline.manifest.rights import licence_of, rights_of
from corpus.pipeline.manifest.schema import (
    DATA_SUFFIXES,
    FORMATS,
    FORMS,
    SPLITS,
    Manifest,
    Member,
    Mirror,
    Quality,
    Shape,
    Split,
)

__all__ = [
    "BUILT_IN", "CORPORA", "DATASETS", "DATA_SUFFIXES", "FORMATS", "FORMS", "NAME", "SPLITS", "Manifest", "Member",
    "Mirror", "Quality", "Shape", "Split", "licence_of", "load", "parse", "parse_file", "rights_of",
]  # fmt: skip
