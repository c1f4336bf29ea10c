"""The used documents in the formats of other trainers: nanoGPT, llm.c, Megatron-LM, `datasets`, MosaicML streaming."""

from corpus.pipeline.export.stage import ExportConfig, run

__all__ = ["ExportConfig", "run"]
