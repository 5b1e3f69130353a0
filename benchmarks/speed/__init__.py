"""Benchmarks of time and memory: run each with `python -m benchmarks.speed.NAME` from the
repository's root.
"""
