"""Signatures of documents, by which `corpus.pipeline.dedup` finds duplicates without reading their texts."""
