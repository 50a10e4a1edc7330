"""Do our networks and steps give the numbers of RVC's own code? Comparison with folders of reference data."""
