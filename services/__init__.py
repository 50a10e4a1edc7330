"""The five services, one per pipeline stage."""
