"""The agent, put together in one place, from its settings to its last word."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from wattkeeper import __version__
from wattkeeper.agent import recover
from wattkeeper.agent.control import Control
from wattkeeper.agent.events import Answer, EventHandler
from wattkeeper.agent.inquire import Inquirer
from wattkeeper.agent.ledger import open_ledger
from wattkeeper.agent.lookup import Lookups
from wattkeeper.agent.observe import Observer
from wattkeeper.agent.parts import Parts
from wattkeeper.agent.root import BASELINES, root_beside, root_here
from wattkeeper.agent.spool import Spool
from wattkeeper.agent.state import State
from wattkeeper.agent.steer import WRITE_DEADLINE_S, Steersman
from wattkeeper.agent.tally import Tally
from wattkeeper.agent.tick import Ticker
from wattkeeper.agent.views import take_snapshot
from wattkeeper.api.server import Doors, Server, uids_of
from wattkeeper.api.web import MetricsSite
from wattkeeper.api.web_file import WebFile
from wattkeeper.config.policy import load_policies
from wattkeeper.config.settings import Settings, load_settings
from wattkeeper.core.policy import Policy
from wattkeeper.errors import ConfigError
from wattkeeper.exporters.prometheus import Exporter
from wattkeeper.exporters.textfile import Textfile
from wattkeeper.gpus.actuator import ThreadedActuator
from wattkeeper.gpus.nvml import NvmlReader
from wattkeeper.gpus.worker import DeviceThread
from wattkeeper.ledger import schema
from wattkeeper.ledger.report import find_runs
from wattkeeper.model import JobFacts
from wattkeeper.privileged.errors import DeviceError
from wattkeeper.privileged.nvml import Nvml
from wattkeeper.protocols import Kept
from wattkeeper.slurm.hook_event import EventKind
from wattkeeper.slurm.lookups import open_lookups
from wattkeeper.slurm.node import SlurmNode
from wattkeeper.slurm.processes import Processes
from wattkeeper.slurm.programs import Programs
from wattkeeper.snapshot import PolicyState, SourceState
from wattkeeper.system.bell import Bell
from wattkeeper.system.clock import SystemClock
from wattkeeper.system.files import RunLock, make_private_folder
from wattkeeper.system.groups import Groups
from wattkeeper.system.service import ServiceManager

log = logging.getLogger("wattkeeper")

REBIND_S = 10.0
_WELL, _UNWELL = SourceState(True), SourceState(False)

STUCK_S = 20.0
"""A tick that takes longer is stuck, and systemd's watchdog may have us."""


async def serve(settings_path: Path, *, single: bool) -> int:
    """Run the agent until SIGTERM or SIGINT; its exit status. Raises WattkeeperError where it cannot start.

    ``single``: it sets limits itself; else the actuator does, a process of its own.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    settings = load_settings(settings_path)
    policy, warnings = load_policies(settings.policies)
    for warning in warnings:
        log.warning("%s", warning)
    make_private_folder(settings.run_dir, 0o755)
    lock = RunLock(settings.run_dir)
    lock.acquire()
    agent = Agent(settings_path, settings, policy, single=single)
    try:
        await agent.start()
        await agent.run()
    finally:
        await agent.stop()
        lock.release()
    return 0


class Agent:
    """Holds the parts and runs the loop."""

    def __init__(self, settings_path: Path, settings: Settings, policy: Policy, *, single: bool) -> None:
        self._settings_path = settings_path
        self._clock = SystemClock()
        self._service = ServiceManager()
        self._tally = Tally()
        self._wake = Bell()
        self._stopping = asyncio.Event()
        self._reload = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._threads: dict[str, DeviceThread] = {}
        node = settings.node or socket.gethostname().split(".")[0]
        self._state = State(settings, policy, node, boot_id=self._clock.boot_id())
        self._state.policy_state = PolicyState(policy.digest, True, self._clock.wall())
        nvml = Nvml(str(settings.gpus.library) if settings.gpus.library else None)
        self._reader = NvmlReader(nvml, self._clock, self._thread_of)
        run_dir, boot_id = settings.run_dir, self._clock.boot_id()
        self._root = root_here(nvml, run_dir, boot_id) if single else root_beside(run_dir)
        self._actuator = ThreadedActuator(self._root.limits, self._thread_of if single else self._thread_to)
        self._spool = Spool(settings.run_dir / "spool", self._clock, self._event_users, self._tally.refused)
        self._ledger = open_ledger(
            settings.state_dir, self._clock, lambda: self._state.settings.ledger.keep, partial(print, flush=True)
        )
        processes = Processes(self._root.evidence_of)
        self._observer = Observer(self._state, self._reader, self._clock, processes)
        self._steersman = Steersman(self._state, self._actuator, self._clock, self._tally)
        self._deciding = asyncio.Lock()
        parts = Parts(
            self._state, self._clock, self._tally, self._actuator, self._ledger, self._observer, self._steersman,
            deciding=self._deciding,
        )  # fmt: skip
        self._inquirer = Inquirer(parts, self._open_lookups, self._publish)
        self._events = EventHandler(parts, self._inquirer)
        self._ticker = Ticker(parts)
        self._snapshot = take_snapshot(self._state, self._tally, self._clock)
        self._exporter = Exporter(lambda: self._snapshot, settings.metrics.job_labels, self._clock.mono)
        web_config = settings.metrics.web_config
        self._site = MetricsSite(self._exporter.render, WebFile(web_config) if web_config else None)
        self._textfile: Textfile | None = None
        self._beat_mono = self._clock.mono()
        self._server = Server(
            Doors(
                snapshot=lambda: self._snapshot,
                metrics=self._exporter.render,
                event=self._event,
                control=Control(parts),
                changed=self._publish_soon,
                event_users=self._event_users,
                strict=lambda: self._state.settings.slurm.strict == "fail",
                past=partial(find_runs, settings.state_dir / schema.FILE),
            )
        )

    def _thread_of(self, device: str, name: str = "") -> DeviceThread:
        name = name or device
        if name not in self._threads:
            late = partial(self._loop.call_soon_threadsafe, self._wake.ring)
            self._threads[name] = DeviceThread(device, on_late=lambda: _quietly(late))
        return self._threads[name]

    def _thread_to(self, device: str) -> DeviceThread:
        """For what the actuator is asked of a device: while that hangs the device is still read."""
        return self._thread_of(device, f"to {device}")

    async def _open_lookups(self, tell: Callable[[JobFacts], None]) -> Lookups:
        asked = self._state.settings.slurm
        sources = await open_lookups(asked.lookup, Programs(asked.conf, asked.bin_dir))
        return Lookups(sources, Groups(self._clock), self._clock, self._tally, tell, asked.timeout)

    async def start(self) -> None:
        """Bind, recover, listen, and say READY."""
        settings = self._state.settings
        make_private_folder(settings.run_dir / "spool", owners=self._event_users())
        if not self._root.beside:
            make_private_folder(settings.run_dir / BASELINES)
        self._slurm = SlurmNode(
            self._state.node,
            settings.slurm.conf,
            settings.slurm.bin_dir,
            settings.slurm.timeout,
            self._root.evidence_of,
        )
        await self._bind(self._ledger.kept)
        await recover.take_up(self._state, self._ledger.kept, self._ledger, self._clock)
        self._steersman.decide(self._state.gpus)  # so that a job whose end the spool holds still tells what it got
        await recover.drain(self._spool, self._events)
        await recover.look(self._state, self._events, self._slurm, self._clock)
        await self._inquirer.take_up()
        await self._ticker.tick("recovery")
        self._publish()
        others = sorted(self._event_users() - {0, os.geteuid()})
        await self._server.open_sockets(settings.run_dir, others[0] if others else None)
        if settings.metrics.listen is not None:
            await self._site.open(settings.metrics.listen)
        for number, event in ((signal.SIGTERM, self._stopping), (signal.SIGINT, self._stopping)):
            self._loop.add_signal_handler(number, partial(self._signalled, event))
        self._loop.add_signal_handler(signal.SIGHUP, partial(self._signalled, self._reload))
        log.info("ready: %s, version %s", self._status(), __version__)
        self._service.ready(self._status())
        gc.collect()
        gc.freeze()  # what start-up made stays: no later collection has to walk through it

    def _event_users(self) -> frozenset[int]:
        return uids_of(self._state.settings.slurm.event_users)

    def _status(self) -> str:
        state = self._state
        return f"node {state.node}, {len(state.gpus)} GPUs, {len(state.policy.rules)} rules, {state.settings.mode}"

    async def run(self) -> None:
        """Tick until told to stop. Ticks, and the watchdog's, go by the monotonic clock."""
        watchdog = asyncio.create_task(self._feed_watchdog())
        next_rebind = self._clock.mono() + REBIND_S
        try:
            while not self._stopping.is_set():
                self._beat_mono = self._clock.mono()
                await self._pause()
                if self._stopping.is_set():
                    break
                if self._reload.is_set():
                    self._reload.clear()
                    await self._read_again()
                if (not self._state.gpus or self._observer.driver_gone) and self._clock.mono() >= next_rebind:
                    next_rebind = self._clock.mono() + REBIND_S
                    await self._rebind()
                elif self._root.beside and self._clock.mono() >= next_rebind:
                    next_rebind = self._clock.mono() + REBIND_S
                    await self._actuator.probe(partial(self._root.evidence_of, os.getpid()))
                await recover.drain(self._spool, self._events)
                await self._ticker.tick()
                self._publish()
                await self._write_textfile()
        finally:
            watchdog.cancel()
            with suppress(asyncio.CancelledError):
                await watchdog

    async def _write_textfile(self) -> None:
        path = self._state.settings.metrics.textfile
        if path is not None:
            self._textfile = self._textfile or Textfile(self._exporter.render)
            await self._textfile.write(path)

    async def stop(self) -> None:
        """Say STOPPING, stop listening, and leave the GPUs as ``on_stop`` says."""
        self._service.stopping()
        await self._site.close()
        await self._server.close()
        await self._inquirer.close()
        await self._leave_gpus()
        self._ledger.close()
        log.info("stopped")

    async def _leave_gpus(self) -> None:
        on_stop = self._state.settings.on_stop
        for gpu in self._state.gpus.values():
            baseline = self._state.baseline_mw(gpu)
            held = bool(self._state.holders(gpu.info.uuid))
            if not gpu.ours or gpu.hold or baseline is None or on_stop == "keep" or (held and on_stop != "restore"):
                continue
            try:
                await self._actuator.give_back(gpu.info.uuid, baseline, WRITE_DEADLINE_S)
                log.info("gpu=%d given back at %d W", gpu.info.minor, baseline // 1000)
            except DeviceError as error:
                log.error("gpu=%d not given back: %s", gpu.info.minor, error)

    async def _pause(self) -> None:
        await self._wake.wait(self._steersman.changes_in_s(self._state.settings.interval))

    async def _feed_watchdog(self) -> None:
        """Tell systemd that we live, for as long as ticks come to an end."""
        every = self._service.watchdog_s
        while every is not None:
            if self._clock.mono() - self._beat_mono < STUCK_S + self._state.settings.interval:
                self._service.alive()
            await self._clock.sleep(every)

    def _signalled(self, event: asyncio.Event) -> None:
        event.set()
        self._wake.ring()

    async def _event(self, kind: EventKind, raw: bytes) -> Answer:
        await recover.drain(self._spool, self._events)  # what was left earlier comes first
        answer = await self._events.handle(kind, raw)
        self._publish()
        return answer

    def _publish(self) -> None:
        self._state.sources["ledger"] = _WELL if self._ledger.alarm is None else _UNWELL
        if self._root.beside:
            self._state.sources["actuator"] = _WELL if self._actuator.gone is None else _UNWELL
        for name in ("slurm", "groups"):
            self._state.sources.pop(name, None)
        self._state.sources |= {name: _WELL if up else _UNWELL for name, up in self._inquirer.up.items()}
        alarms = {
            "ledger": self._ledger.alarm,
            "set_aside": self._ledger.aside_alarm,
            "web_config": self._site.alarm,
            "actuator": self._actuator.gone,
            "lookup": self._inquirer.trouble,
        }
        for name, alarm in alarms.items():
            if alarm is not None:
                self._state.alarms[name] = alarm
            else:
                self._state.alarms.pop(name, None)
        self._snapshot = take_snapshot(self._state, self._tally, self._clock)

    def _publish_soon(self) -> None:
        self._publish()
        self._wake.ring()

    async def _rebind(self) -> None:
        """After the driver went away, or came: open it afresh and find the GPUs."""
        self._reader.reopen()
        self._observer.driver_gone = False
        await self._bind(replace(self._ledger.kept, holds={}))
        async with self._deciding:  # jobs that came before the driver
            await recover.look(self._state, self._events, self._slurm, self._clock)

    async def _bind(self, kept: Kept) -> None:
        await recover.bind(self._state, self._reader, self._actuator, await self._slurm.gres(), kept)
        for gpu in self._state.gpus.values():
            self._tally.expect(gpu.info.minor)

    async def _read_again(self) -> None:
        """SIGHUP: settings and policies anew. A bad file leaves the old ones in force, and says so."""
        self._service.reloading()
        state = self._state
        try:
            settings = load_settings(self._settings_path)
            policy, warnings = load_policies(settings.policies)
        except ConfigError as error:
            log.error("reload failed, the old policy stays in force:\n%s", error)
            state.policy_state = replace(state.policy_state, reload_ok=False, error=str(error))
        else:
            for warning in warnings:
                log.warning("%s", warning)
            state.settings = replace(settings, run_dir=state.settings.run_dir, state_dir=state.settings.state_dir)
            state.policy = policy
            state.policy_state = PolicyState(policy.digest, True, self._clock.wall())
            log.info("reloaded: %s", self._status())
            await self._inquirer.take_up()
            await self._ticker.tick("reload")
        self._publish()
        self._service.ready(self._status())


def _quietly(call: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody is left to be woken
        call()
