"""The benchmark harness: `make bench`, or `python -m tests.benchmarks`. See `docs/benchmarks.md`."""
