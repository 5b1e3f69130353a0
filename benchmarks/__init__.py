"""Benchmarks behind the published results.

`quality/` of rankings, `speed/` of the code, `lib/` shared by both.
"""
