"""A first manifest of a user's own dataset.

`sample` reads some records of a source, `guess` finds their form and fields, `write` makes a commented TOML of that.
"""
