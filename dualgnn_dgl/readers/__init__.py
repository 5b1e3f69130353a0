"""Reads a user's files and folders into raw tables (`data.raw.RawInput`); knows every format."""
