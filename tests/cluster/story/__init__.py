"""The user's story as functions, which the demo runs with output and the tests with assertions."""
