"""`python -m corpus.pipeline.cli`, and under torchrun `-m corpus.pipeline.cli train`."""

from corpus.pipeline.cli.main import main

if __name__ == "__main__":  # worker processes import this module under another name
    main()
