"""The one thing that setup.cfg has no word for: an extension, without which the build goes on."""

import hashlib
from pathlib import Path

from setuptools import Extension, setup

SOURCE = "pipeline/_kernels.c"
DIGEST = hashlib.sha256((Path(__file__).parent / SOURCE).read_bytes()).hexdigest()
KERNELS = Extension(
    "corpus.pipeline._kernels",
    [SOURCE],
    define_macros=[("SOURCE_SHA256", f'"{DIGEST}"')],
    py_limited_api=True,
    optional=True,
)

setup(ext_modules=[KERNELS])
