"""The whole way to rows in one process, in small pieces: what the kill tests start and kill."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from corpus.pipeline import download, ingest, pack, tokenizer
from corpus.pipeline.workspace import Workspace


def interrupt(_number: int, _frame: object) -> None:
    """As the command line does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    workspace = Workspace(Path(sys.argv[1]))
    with workspace.writing("way"):
        download.run(download.DownloadConfig(dataset="baike2018qa", source=sys.argv[2]), workspace)
        ingest.run(ingest.IngestConfig(dataset="baike2018qa", workers=2, piece_bytes=60_000), workspace)
        tokenizer.run(tokenizer.TokenizerConfig(vocab_size=400, sample_characters=60_000), workspace)
        pack.run(pack.PackConfig(dataset="baike2018qa", seq_length=64, workers=2, unit_characters=20_000), workspace)
    print("done")
