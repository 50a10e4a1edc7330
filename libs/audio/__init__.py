"""Sound files and arrays: decode, encode, resample, report. Never torch."""
