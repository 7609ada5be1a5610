"""conmon: one small process per container that keeps its log and its exit code."""
