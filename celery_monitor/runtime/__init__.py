"""The daemon's loops. They use only the ports and the core, never a specific broker, database or channel."""
