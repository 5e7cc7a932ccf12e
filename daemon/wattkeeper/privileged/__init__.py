"""All that needs root: setting a limit within the device's range, with read-back and a saved baseline.

Imports only the standard library and ``pynvml``, takes and gives plain values, and is asynchronous, so that it can
move into a process of its own without a change in its callers.
"""
