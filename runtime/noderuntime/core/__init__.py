"""The parts that every floor uses: errors, IDs, logging, paths, tasks, blocking calls and the database."""
