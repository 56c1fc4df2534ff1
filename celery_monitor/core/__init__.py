"""The pure core: no I/O, no clock, no logging, no randomness. ``now`` is always a parameter, in unix seconds."""
