"""A typed client of the gateway, and the `voicewright` command line."""
