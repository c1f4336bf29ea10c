"""Tokens in, tokens out: model, cache, sampler, detokenizer."""
