"""The demo's application: a small shop with tasks and faults.

It does not depend on the monitor. The demo copies it to its directory and imports it from there as the package
``shop``, so that tracebacks show the application's own files, which can be opened while the demo runs. A task's serial
number decides whether it fails, so every run has the same faults in the same proportion.
"""
