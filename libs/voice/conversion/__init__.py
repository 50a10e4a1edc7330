"""Everything between a recording and the same speech in another voice: one module per step of the chain."""
