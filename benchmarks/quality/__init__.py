"""Benchmarks of ranking quality.

Run each with `python -m benchmarks.quality.NAME` from the repository's root.
"""
