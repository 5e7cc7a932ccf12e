"""HTTP on ``events.sock`` (hooks and admins) and ``read.sock`` (everybody). The metrics' own listener is in web.py."""

import asyncio
import json
import logging
import os
import pwd
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from wattkeeper.agent.control import Control
from wattkeeper.agent.events import Answer
from wattkeeper.api import present
from wattkeeper.api.bind import bind_private, peer_uid
from wattkeeper.api.line import usage_line
from wattkeeper.api.past import earlier_json, past_json
from wattkeeper.api.request_log import RequestLog
from wattkeeper.api.turns import Turns
from wattkeeper.errors import StoreError, WattkeeperError
from wattkeeper.protocols import JobRecord
from wattkeeper.slurm.hook_event import MAX_ENVIRONMENT, EventKind
from wattkeeper.snapshot import JobView, Snapshot
from wattkeeper.system.activation import given_sockets
from wattkeeper.system.sparing import Sparing
from wattkeeper.text import printable

log = logging.getLogger("wattkeeper.api")

ANSWER_DEADLINE_S = {EventKind.PROLOG: 1.5, EventKind.EPILOG: 0.22}
"""Below the hooks' own patience (1.7 and 0.25 s), so that they hear of a slow driver rather than of nothing."""

BACKLOG = 512
"""Hooks that may wait for their turn, one for each job that starts or ends at a time."""

_FIRST_RUNS = ("", "r0")
"""Runs that none came before, by their names."""

FRESH_DEADLINE_S = 0.2
"""How long a job's last line waits for figures of this moment: below the TaskEpilog's patience (0.3 s)."""


@dataclass(frozen=True, slots=True)
class Doors:
    """What the sockets lead to."""

    snapshot: Callable[[], Snapshot]
    metrics: Callable[[str], tuple[bytes, str]]
    """The page, for a client of that name."""
    event: Callable[[EventKind, bytes], Awaitable[Answer]]
    control: Control
    changed: Callable[[], None]
    event_users: Callable[[], frozenset[int]]
    strict: Callable[[], bool]
    past: Callable[[int, int], Sequence[JobRecord]] = lambda _job_id, _uid: ()
    """Runs of a job in the ledger that a user may see, newest first. May block on the disk. Raises StoreError."""


class Server:
    """Serves until closed. Both sockets are made with their final mode: never open to more than they should be."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._runners: list[web.AppRunner] = []
        self._tasks: set[asyncio.Task[Answer]] = set()
        self._asked_for_tick = -1.0
        self._asking = asyncio.Lock()
        self._turns = Turns()
        self._sparing = Sparing(log, lambda: asyncio.get_running_loop().time())

    async def open_sockets(self, run_dir: Path, owner_uid: int | None) -> None:
        """Serve both unix sockets: systemd's where it gave them (`read`, `events`), else our own.

        ``owner_uid``: who, besides root, may connect to an ``events.sock`` that is made here. Raises WattkeeperError.
        """
        given = given_sockets()
        read, events = run_dir / "read.sock", run_dir / "events.sock"
        reading = _taken(given, "read", read) or bind_private(read, 0o666, None)
        hearing = _taken(given, "events", events) or bind_private(events, 0o600, owner_uid)
        for name, unused in given.items():
            log.error("systemd gave a socket '%s', which is none of `events` and `read`: nobody answers there", name)
            unused.close()
        await self._serve_unix(self._reading(peer_uid), reading)
        application = self._reading(peer_uid)
        application.middlewares.append(self._only_event_users)
        application.router.add_post("/v1/events/{kind}", self._event)
        application.router.add_post("/v1/control/{verb}", self._command)
        await self._serve_unix(application, hearing)

    async def close(self) -> None:
        """Stop listening; requests under way are finished first, for two seconds at most."""
        for runner in self._runners:
            await runner.cleanup()

    async def _runner(self, application: web.Application) -> web.AppRunner:
        own_log = RequestLog(log, self._sparing)
        runner = web.AppRunner(application, access_log=None, logger=own_log, shutdown_timeout=2.0)
        await runner.setup()
        self._runners.append(runner)
        return runner

    async def _serve_unix(self, application: web.Application, listener: socket.socket) -> None:
        runner = await self._runner(application)
        await web.SockSite(runner, listener, backlog=BACKLOG).start()

    def _reading(self, uid_of: Callable[[web.Request], int]) -> web.Application:
        application = web.Application(client_max_size=MAX_ENVIRONMENT + 1)

        async def status(request: web.Request) -> web.Response:
            async with self._turns:
                return _json(present.status(self._doors.snapshot(), uid_of(request)))

        async def job(request: web.Request) -> web.Response:
            return await self._job(int(request.match_info["id"]), uid_of(request))

        async def message(request: web.Request) -> web.Response:
            job_id, uid = int(request.match_info["id"]), uid_of(request)
            found = present.find_job(self._doors.snapshot(), job_id, uid)
            return _no_job(job_id, uid) if found is None else web.Response(text=found.message + "\n")

        async def line(request: web.Request) -> web.Response:
            return await self._line(int(request.match_info["id"]), uid_of(request))

        application.router.add_get("/v1/status", status)
        application.router.add_get(r"/v1/jobs/{id:\d{1,10}}", job)
        application.router.add_get(r"/v1/jobs/{id:\d{1,10}}/message", message)
        application.router.add_get(r"/v1/jobs/{id:\d{1,10}}/line", line)
        application.router.add_get("/metrics", self._metrics)
        return application

    async def _job(self, job_id: int, uid: int) -> web.Response:
        found = present.find_job(self._doors.snapshot(), job_id, uid)
        if found is None:
            return await self._past(job_id, uid)
        earlier = await self._earlier(found, uid)
        return _json({**present.job_json(found, self._doors.snapshot()), **earlier})

    async def _ledger(self, job_id: int, uid: int) -> Sequence[JobRecord]:
        async with self._asking:  # whoever asks much waits for himself, and keeps no other thread busy
            return await asyncio.to_thread(self._doors.past, job_id, uid)

    async def _earlier(self, job: JobView, uid: int) -> present.Json:
        """The earlier runs of a job that is here. Those that only a ledger knows which does not answer are left out."""
        records: Sequence[JobRecord] = ()
        if job.key.run not in _FIRST_RUNS:
            with suppress(StoreError, TimeoutError):
                records = await asyncio.wait_for(self._ledger(job.key.job_id, uid), FRESH_DEADLINE_S)
        return earlier_json(job.facts, job.started_at, self._doors.snapshot(), records)

    async def _past(self, job_id: int, uid: int, *, as_line: bool = False) -> web.Response:
        """A job from before ``metrics.grace``, or from before the agent was started, out of the ledger."""
        try:
            runs = await self._ledger(job_id, uid)
        except StoreError as error:
            return _json({"error": f"job {job_id} is not here any more, and the ledger cannot tell: {error}"}, 503)
        if not runs:
            return _no_job(job_id, uid)
        note = runs[0].note
        job = {**past_json(runs[0]), **earlier_json(note.facts, note.started_at, self._doors.snapshot(), runs)}
        return web.Response(text=usage_line(job, note.facts.num_nodes) + "\n") if as_line else _json(job)

    async def _line(self, job_id: int, uid: int) -> web.Response:
        """What a job used, in one line. One that runs is charged anew first: its last seconds are in the figure."""
        found = present.find_job(self._doors.snapshot(), job_id, uid)
        if found is None:
            return await self._past(job_id, uid, as_line=True)
        runs = found.ended_at is None and found.gpus
        earlier, _ = await asyncio.gather(self._earlier(found, uid), self._charge_anew(found) if runs else _nothing())
        snapshot = self._doors.snapshot()
        found = present.find_job(snapshot, job_id, uid) or found
        job = {**present.job_json(found, snapshot), **earlier}
        return web.Response(text=usage_line(job, found.facts.num_nodes) + "\n")

    async def _charge_anew(self, job: JobView) -> None:
        """Wait for the next look at the job's GPUs, and ask for it; it is asked for once a second at most."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FRESH_DEADLINE_S
        before = _looked_at(self._doors.snapshot(), job)
        if loop.time() - self._asked_for_tick >= 1.0:
            self._asked_for_tick = loop.time()
            self._doors.changed()
        while _looked_at(self._doors.snapshot(), job) == before and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # a tick takes about as long

    @web.middleware
    async def _only_event_users(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        uid = peer_uid(request)
        if uid not in self._doors.event_users():
            what = f"refused {printable(request.method, 20)} {printable(request.path, 100)} from uid {uid}"
            resource = request.match_info.route.resource
            self._sparing.warn((uid, resource.canonical if resource else None), what)
            return _json({"error": f"uid {uid} is not in slurm.event_users"}, 403)
        return await handler(request)

    async def _event(self, request: web.Request) -> web.Response:
        try:
            kind = EventKind(request.match_info["kind"])
        except ValueError:
            return _json({"error": "no such event: prolog or epilog"}, 404)
        task = asyncio.ensure_future(self._doors.event(kind, await request.read()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        done, _ = await asyncio.wait({task}, timeout=ANSWER_DEADLINE_S[kind])
        if not done:
            self._doors.changed()  # the job's own line is asked for next, and says that nothing is set yet
            return self._unsure(kind, "the driver is slow: the limits are not confirmed yet")
        answer = task.result()
        if answer.outcome == "invalid":
            return _json({"outcome": answer.outcome, "text": answer.text}, 400)
        if not answer.applied:
            return self._unsure(kind, answer.text)
        return _json({"outcome": answer.outcome, "text": answer.text})

    def _unsure(self, kind: EventKind, text: str) -> web.Response:
        """The event is taken in and will be retried by the tick; under ``strict: fail`` the job must not start."""
        refused = kind is EventKind.PROLOG and self._doors.strict()
        return _json({"outcome": "unsure", "text": text}, 409 if refused else 200)

    async def _command(self, request: web.Request) -> web.Response:
        try:
            words = json.loads(await request.read() or b"{}")
            report = await self._obey(request.match_info["verb"], words)
        except (ValueError, TypeError, AttributeError) as error:
            return _json({"error": f"not understood: {printable(str(error))}"}, 400)
        except WattkeeperError as error:
            return _json({"error": str(error)}, 409)
        self._doors.changed()
        return _json({"gpus": report})

    async def _obey(self, verb: str, words: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        minor = None if words.get("gpu") is None else int(words["gpu"])
        if verb == "hold":
            seconds = None if words.get("seconds") is None else float(words["seconds"])
            return await self._doors.control.hold(minor, seconds, str(words.get("reason") or "no reason given"))
        if verb == "resume":
            return await self._doors.control.resume(minor)
        if verb == "restore":
            return await self._doors.control.restore(minor)
        raise ValueError(f"no such command: {verb} (hold, resume, restore)")

    async def _metrics(self, request: web.Request) -> web.Response:
        agent = printable(request.headers.get("User-Agent", ""), 200)
        async with self._turns:
            page, content_type = self._doors.metrics(f"uid {peer_uid(request)} {agent}")
        return web.Response(body=page, headers={"Content-Type": content_type})


def _taken(given: dict[str, socket.socket], name: str, path: Path) -> socket.socket | None:
    """The socket that systemd holds under that name, taken out of ``given``. ``path``: where hooks and people look."""
    listener = given.pop(name, None)
    if listener is not None and listener.getsockname() != str(path):
        log.error("systemd's socket '%s' is %s, but hooks look at %s", name, listener.getsockname(), path)
    return listener


def uids_of(names: tuple[str, ...]) -> frozenset[int]:
    """The uids of ``slurm.event_users``, and this process's own. An unknown name is logged and left out."""
    uids = {os.geteuid()}
    for name in names:
        try:
            uids.add(int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid)
        except KeyError:
            log.error("slurm.event_users: this node has no user %s", name)
    return frozenset(uids)


async def _nothing() -> None:
    """For ``gather`` where there is nothing to wait for."""


def _no_job(job_id: int, uid: int) -> web.Response:
    what = f"this node knows no job {job_id}{' of yours' if uid else ''}, neither now nor in its ledger"
    return _json({"error": f"{what}; ask on the job's own nodes: sacct -j {job_id} -o nodelist"}, 404)


def _looked_at(snapshot: Snapshot, job: JobView) -> list[float | None]:
    """When each GPU of the job was last read, on the monotonic clock."""
    return [gpu.reading.at_mono if gpu.reading else None for gpu in snapshot.gpus if gpu.info.uuid in job.gpus]


def _json(content: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.json_response(content, status=status)
