"""The whole way to rows, or to a trained model, in one process and in small pieces: what the kill tests start and kill.

Arguments: the workspace, a folder or a URL, the source, an evaluation file with the model of a score beside it, and the
folder of a model to train from, when there is to be training.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

if __name__ == "__main__":  # workers import this file too, and no stage but the one whose pieces they do
    from corpus.pipeline.decontaminate import stage as decontaminate
    from corpus.pipeline.decontaminate.config import DecontaminateConfig
    from corpus.pipeline.dedup import stage as dedup
    from corpus.pipeline.documents import stage as ingest
    from corpus.pipeline.download import stage as download
    from corpus.pipeline.pack import stage as pack
    from corpus.pipeline.quality import QualityConfig
    from corpus.pipeline.quality import stage as quality
    from corpus.pipeline.store import open_workspace
    from corpus.pipeline.tokenizer import stage as tokenizer
    from corpus.pipeline.workers import kept
    from corpus.pipeline.workspace.layout import Workspace


def interrupt(_number: int, _frame: object) -> None:
    """As the command line does."""
    raise KeyboardInterrupt


def train(workspace: Workspace, model: Path) -> None:
    """A few steps with many checkpoints."""
    from corpus.train.config import TrainConfig
    from corpus.train.run import stage

    config = TrainConfig(
        init=model, run="one", max_steps=120, batch_size=8, micro_batch_size=5, dropout=0.1, log_steps=3, eval_steps=40,
        eval_rows=16, save_steps=4, threads=1, device="cpu", precision="fp32", sample_prompts=("问",),
    )  # fmt: skip
    stage.run(config, workspace)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it would be ignored
    url = sys.argv[1] if "://" in sys.argv[1] else ""
    workspace = open_workspace(url) if url else Workspace(Path(sys.argv[1]))
    with workspace.writing("way"):
        with kept():  # as `corpus ingest` does
            download.run(download.DownloadConfig(dataset="baike2018qa", source=sys.argv[2]), workspace)
            ingest.run(ingest.IngestConfig(dataset="baike2018qa", workers=2, piece_bytes=1 << 20), workspace)
            dedup.run(dedup.DedupConfig(workers=2, spans=60), workspace)
            exam = Path(sys.argv[3])
            decontaminate.run(DecontaminateConfig(against=(exam,), workers=2), workspace)
            score = QualityConfig(model=exam.with_name("score.safetensors"), alpha=0.5, workers=2)
            quality.run(score, workspace)
        tokenizer.run(tokenizer.TokenizerConfig(vocab_size=400, sample_characters=60_000), workspace)
        with kept():  # as `corpus pack` does
            for form in pack.FORMS:
                rows = pack.PackConfig(
                    dataset="baike2018qa", form=form, seq_length=128, workers=2, unit_characters=200_000
                )
                pack.run(rows, workspace)
        if len(sys.argv) > 4:
            train(workspace, Path(sys.argv[4]))
    print("done")
