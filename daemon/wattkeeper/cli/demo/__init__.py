"""``wattkeeper demo``: the real agent and the real hooks, on simulated GPUs, with a stream of example jobs."""

from wattkeeper.cli.demo.command import demo

__all__ = ["demo"]
