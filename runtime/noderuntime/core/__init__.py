"""What every floor uses: errors, IDs, logging, paths, tasks, blocking calls and the database."""
