"""Receives recordings, examines them, and keeps them in datasets."""
