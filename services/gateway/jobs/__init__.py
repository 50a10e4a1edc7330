"""What work was asked for, how far it is, and what happens next: the database's truth about jobs."""
