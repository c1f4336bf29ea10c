"""Sampling: a model folder and prompts in, text out, piece by piece.

`loading` opens a folder safely; `window` keeps keys and values of the newest tokens; `choose` picks the next token;
`decode` turns tokens into whole characters; `stop` finds stop strings across token borders; `sample` is the command.
"""
