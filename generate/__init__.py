"""Sampling: a model folder and prompts in, text out, piece by piece.

`loading` opens a folder safely; `window` keeps keys and values of the newest tokens; `choose` picks the next token;
`decode` turns tokens into whole characters; `stop` finds stop strings across token borders; `sample` is the command.
`prompts` reads files of prompts, `bulk` continues them, `part` lets an interrupted file go on; `form` puts examples and
questions as training did; `chat` holds a conversation; `timings` and `picture` show what a token costs.
"""
