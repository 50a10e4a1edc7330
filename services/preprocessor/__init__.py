"""Turns recordings into RVC training folders: pieces, pitch, content features."""
