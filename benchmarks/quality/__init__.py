"""Benchmarks of ranking quality: run each with `python -m benchmarks.quality.NAME` from the
repository's root.
"""
