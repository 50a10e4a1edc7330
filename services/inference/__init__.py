"""Serves trained voices: converts recordings, with voices loaded by checksum."""
