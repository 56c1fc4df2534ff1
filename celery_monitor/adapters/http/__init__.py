"""One request to a server that may be hostile, slow, or behind a proxy: shared by the channels that speak HTTP.

Of the adapters, only channels may import it.
"""
