"""The training stage: packed rows in, a GPT that `transformers` opens out.

`config` is what a user can set, `presets` the sizes by name, `plan` what will be done and whether it already is,
`order` which row comes when, `collate` how rows become a batch, `model` how the network comes to be, `device` where it
runs, `arguments` and `trainer` the thin layer over Hugging Face's `Trainer`, `evaluate` bits per character and byte,
`announce` what is said before it starts, `folder` what lies in a run's folder, and `train` the stage that joins them.
"""
