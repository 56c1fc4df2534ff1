"""Requests to servers that may be hostile, slow, or behind a proxy, for the channels that use HTTP.

Of the adapters, only channels may import it.
"""
