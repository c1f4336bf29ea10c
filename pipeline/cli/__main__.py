"""`python -m corpus.pipeline.cli` is the command `corpus`."""

from corpus.pipeline.cli.main import main

if __name__ == "__main__":  # worker processes import this module under another name
    main()
