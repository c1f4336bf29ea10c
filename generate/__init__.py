"""Sampling: a model folder and prompts in, text out.

`config` holds settings and results; `stage` streams samples; `bulk` continues a file of prompts (`prompt_file`) into a
file of results (`results_file`); `few_shot` puts examples before a prompt; `chat` holds a conversation; `benchmark`
times a token. `engine` has the model, its cache, the sampler and the detokenizer.
"""
