"""Experiments of many trainings, each of which is kept and never repeated."""
