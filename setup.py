"""The one thing that setup.cfg has no word for: an extension, without which the build goes on."""

from setuptools import Extension, setup

KERNELS = Extension("corpus.pipeline._kernels", ["pipeline/_kernels.c"], py_limited_api=True, optional=True)

setup(ext_modules=[KERNELS])
