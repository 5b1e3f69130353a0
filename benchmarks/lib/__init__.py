"""Shared parts of the benchmarks: paths, prepared data sets, kept trainings."""
