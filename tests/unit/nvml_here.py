"""This process as a client of simulated GPUs, through pynvml, and through ctypes for what pynvml never passes on."""

import contextlib
import ctypes
import dataclasses
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pynvml as n
import pytest

from build_simulator import refresh_in_tree
from wattkeeper.simulator import Model, Simulation, find_library, find_model
from wattkeeper.simulator.models import Lack

SUCCESS, INSUFFICIENT_SIZE, TIMEOUT, IN_USE, MEMORY = 0, 7, 10, 19, 20
NO_INSTANCE = 0xFFFFFFFF
FUTURE_US = 2**62

Handle = Any
Opener = Callable[..., Simulation]


@cache
def raw() -> ctypes.CDLL:
    """The library itself. Loaded, it is what pynvml finds."""
    refresh_in_tree()
    return ctypes.CDLL(str(find_library()))


@contextlib.contextmanager
def client_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """What makes GPUs whose time stands still, with ideal sensors, and this process their client."""
    with contextlib.ExitStack() as ended:

        def create(model: str | Model = "H100", **more: Any) -> Simulation:
            options = {"sensors": "ideal", "clock": "manual", **more}
            raw()
            one = ended.enter_context(Simulation.create(folder / "sim", model=model, **options))
            monkeypatch.setenv("WATTKEEPER_SIM_STATE", str(one.state))
            n.nvmlInit()
            ended.callback(n.nvmlShutdown)
            return one

        yield create


def gpu(index: int = 0) -> Handle:
    return n.nvmlDeviceGetHandleByIndex(index)


def code(function: Callable[..., Any], *arguments: Any) -> int:
    """The error that a call through pynvml answers."""
    with pytest.raises(n.NVMLError) as caught:
        function(*arguments)
    return int(caught.value.value)


def lacking(lack: Lack) -> Model:
    """An H100 that lacks something more."""
    model = find_model("H100")
    return dataclasses.replace(model, lacks=model.lacks | lack)
