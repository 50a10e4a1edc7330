"""What did the services say? Their log lines, searched for administrators."""
