"""Documents of a dataset of a user's own."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq

from corpus.pipeline.storage.document_shards import parts
from corpus.pipeline.workspace.layout import Workspace


def documents(workspace: Workspace) -> list[dict[str, Any]]:
    """All documents, used or not."""
    return [row for path in parts(workspace.documents("dumps")) for row in pq.read_table(path).to_pylist()]
