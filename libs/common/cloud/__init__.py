"""How does the platform talk to other people's speech services? One door for each, over plain HTTP."""
