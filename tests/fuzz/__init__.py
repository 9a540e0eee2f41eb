"""Noise at every place where adaptd reads what others wrote.

`targets` has the places, `corpus/` sound and odd inputs to begin with, `edits` what is done to
them. tests/test_fuzz.py tries each for a moment; `make fuzz` (``python -m tests.fuzz``) for
long; ``python -m tests.fuzz.guided TARGET`` lets atheris look for new paths, where it is installed.
"""
