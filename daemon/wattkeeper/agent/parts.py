"""The agent's parts, as those who need several of them are given them."""

import asyncio
from dataclasses import dataclass

from wattkeeper.agent.ledger import LedgerWriter
from wattkeeper.agent.observe import Observer
from wattkeeper.agent.state import State
from wattkeeper.agent.steer import Steersman
from wattkeeper.agent.tally import Tally
from wattkeeper.protocols import Actuator, Clock


@dataclass(frozen=True, slots=True)
class Parts:
    """``deciding``: who holds this lock may change holdings and targets; no device is written under it."""

    state: State
    clock: Clock
    tally: Tally
    actuator: Actuator
    ledger: LedgerWriter
    observer: Observer
    steersman: Steersman
    deciding: asyncio.Lock
