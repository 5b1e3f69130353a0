"""Models written as slowly as their equations: one loop a sum, one line an equation, float64.

Read beside the papers.
"""
