"""RVC's networks, losses and training recipe, exact in names, shapes and numbers."""
