"""Who did what? An append-only table of every change."""
