"""Readers of one event stream to compare: this daemon, its peers from PyPI, and plain kombu."""
