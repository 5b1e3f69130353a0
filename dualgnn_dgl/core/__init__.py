"""What every other storey stands on: files and folders, locks, options, ids, memory, devices, progress, vocabulary."""
