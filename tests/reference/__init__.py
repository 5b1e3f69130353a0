"""Models written as slowly as their equations: a loop per sum, a line per equation, float64.

Read them beside the papers.
"""
