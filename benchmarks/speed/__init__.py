"""Benchmarks of time and memory.

Run each with `python -m benchmarks.speed.NAME` from the repository's root.
"""
