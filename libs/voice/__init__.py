"""The voice engine: slicing, pitch, content, retrieval, networks, training, conversion."""

from __future__ import annotations

import os

# Threads that spin while they wait make everything up to twelve times slower as soon as cores are shared (measured in
# docs/decisions/0043). OpenMP reads this once, when torch is loaded, so it is set before any module here imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
