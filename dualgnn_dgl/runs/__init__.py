"""Keeps what a training made: the run folder, checkpoints, resuming, and folding newcomers into a
run.
"""
