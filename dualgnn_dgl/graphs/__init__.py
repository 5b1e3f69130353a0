"""Builds graphs from a data set: DGL heterographs, user co-occurrence, nearest items, newcomers'
edges.
"""
