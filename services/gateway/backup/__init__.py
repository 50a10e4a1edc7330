"""How does the platform outlive its machine? Everything goes into one file, and back into an empty place."""
