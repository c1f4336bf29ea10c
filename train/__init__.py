"""Training and evaluation: packed rows in, a GPT that `transformers` opens out.

`config` holds the settings and `presets` the sizes by name. `data` turns rows into batches; `model` builds or loads a
network on its device; `evaluation` measures loss and bits per character; `run` plans a run and trains it.
"""
