"""What every service stands on: settings, paths, events, bus, leases, storage, health."""
