"""Everything that a person types: one file per deed, run as `python -m scripts.<name>` or through `make`."""
