"""The voice engine: slicing, pitch, content, retrieval, networks, training, conversion."""
