"""Which voices are there? The registry of trained voice models."""
