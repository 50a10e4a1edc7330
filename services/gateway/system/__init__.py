"""How is the installation? Version and the state of its services."""
