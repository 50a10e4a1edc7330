"""Who makes a voice? One module for each provider; `protocol.py` says what a provider is."""
