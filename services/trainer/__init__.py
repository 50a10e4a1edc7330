"""Trains voices in child processes, builds their index, judges them, and publishes whole versions."""
