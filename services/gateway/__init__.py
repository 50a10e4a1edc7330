"""The one public service: accounts, datasets, voices and jobs, and the only owner of the database."""
