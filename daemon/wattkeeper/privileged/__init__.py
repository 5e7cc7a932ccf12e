"""All that needs root: power limits within the device's range and below the baseline, and evidence of who runs here.

It imports the standard library and ``pynvml``, takes and gives plain values, and blocks. As a service it is a process
of its own (``python -m wattkeeper.privileged``) that the agent asks over a socket; ``wattkeeper run --single`` and
commands that work without an agent call it directly. ``gpus/actuator.py`` is the way to it from the loop.
"""
