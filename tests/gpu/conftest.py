"""The narrow network of the tests of training."""

from tests.train.run.conftest import narrow

__all__ = ["narrow"]
