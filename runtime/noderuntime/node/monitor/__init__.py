"""Container monitors: conmon, one process per container, writes the log and records the exit code."""
