"""The application of the demo: a small shop, with its tasks, and what goes wrong in it.

It knows nothing of the monitor. The demo copies it to its directory and imports it from there as the package ``shop``,
so that tracebacks show an application's own files, which can be opened while the demo runs.
What fails is decided by a task's serial number: every run shows the same faults in the same proportion.
"""
