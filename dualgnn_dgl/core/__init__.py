"""Basics that all other packages build on.

Files and folders, locks, options, ids, memory, devices, progress, vocabulary.
"""
