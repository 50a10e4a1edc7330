"""Which providers of voices there are, whether they can be used here, and what a voice of theirs costs."""
