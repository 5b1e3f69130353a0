"""Builds graphs from a data set: heterographs, user co-occurrence, nearest items, fold-in edges."""
