"""How many people may one voice speak as? As many as RVC's table of speakers has rows."""

SPEAKERS = 109
HIGHEST_SPEAKER = SPEAKERS - 1
"""Their numbers begin with 0."""
