"""Benchmarks behind the published results.

`quality/` measures rankings, `speed/` the code; `lib/` is shared by both.
"""
