"""What every other storey stands on.

Files and folders, locks, options, ids, memory, devices, progress, vocabulary.
"""
