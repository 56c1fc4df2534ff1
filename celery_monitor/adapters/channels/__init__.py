"""Where notifications go: one package for each type of channel, unaware of the others.

Nothing outside of a channel's package names it, but for the list in ``celery_monitor/channels.py``.
"""
