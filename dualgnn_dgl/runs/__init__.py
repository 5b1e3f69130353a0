"""Run folders, checkpoints, resuming, and newcomers in a trained run."""
