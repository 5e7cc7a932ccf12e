"""Talks to the agent: HTTP on the two unix sockets in its ``run_dir``."""

import http.client
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from wattkeeper.errors import AgentUnreachableError, ConfigError, WattkeeperError
from wattkeeper.text import printable_once

if TYPE_CHECKING:
    from wattkeeper.config.settings import Settings

DEFAULT_RUN_DIR = Path("/run/wattkeeper")
READ_SOCKET = "read.sock"
EVENTS_SOCKET = "events.sock"

F = TypeVar("F", bound=Callable[..., object])


class AgentRefusedError(WattkeeperError):
    """The agent answered, and said no. ``status`` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class SettingsError(WattkeeperError):
    """This node's settings cannot be used, on one line: the person mends the file."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the agent answered: HTTP's status and the body as it came."""

    status: int
    body: bytes

    @property
    def fine(self) -> bool:
        return 200 <= self.status < 300

    def text(self) -> str:
        return self.body.decode(errors="replace")


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(str(self._path))


class AgentClient:
    """The agent whose sockets are in ``run_dir``. Each step of a call may take ``timeout_s`` seconds."""

    def __init__(self, run_dir: Path, timeout_s: float = 5.0) -> None:
        self.run_dir = run_dir
        self._timeout_s = timeout_s

    def get(self, path: str) -> Any:
        """What a GET on the reading socket answers, from JSON. Raises AgentUnreachableError, AgentRefusedError."""
        return _data(self._request(READ_SOCKET, "GET", path))

    def get_text(self, path: str) -> str:
        """The same where the answer is text. Raises AgentUnreachableError, AgentRefusedError."""
        answer = self._request(READ_SOCKET, "GET", path)
        return answer.text() if answer.fine else str(_data(answer))

    def control(self, action: str, order: Mapping[str, object]) -> Any:
        """Orders ``hold``, ``resume`` or ``restore``. Raises AgentUnreachableError, AgentRefusedError."""
        body = json.dumps(order).encode()
        path = f"/v1/control/{action}"
        return _data(self._request(EVENTS_SOCKET, "POST", path, body, "application/json"))

    def post_event(self, event: str, environment: bytes) -> Answer:
        """Reports a hook's environment. Raises AgentUnreachableError; a refusal is an answer like others."""
        return self._request(EVENTS_SOCKET, "POST", f"/v1/events/{event}", environment, "application/octet-stream")

    def _request(self, name: str, method: str, path: str, body: bytes | None = None, kind: str = "") -> Answer:
        place = self.run_dir / name
        connection = _Connection(place, self._timeout_s)
        try:
            connection.request(method, path, body, {"Content-Type": kind} if kind else {})
            response = connection.getresponse()
            return Answer(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise AgentUnreachableError(_mend(place, error, self._timeout_s)) from None
        finally:
            connection.close()


def _data(answer: Answer) -> Any:
    """The JSON of an answer. Raises AgentRefusedError with the agent's own words."""
    try:
        data = json.loads(answer.body)
    except ValueError:
        data = None
    if not answer.fine:
        words = data.get("error") if isinstance(data, dict) else None
        text = str(words or f"the agent answered with HTTP status {answer.status}")
        raise AgentRefusedError(answer.status, printable_once(text, 500))
    if data is None:
        raise AgentUnreachableError("the agent's answer is not JSON: are command and agent of the same release?")
    return data


def _mend(place: Path, error: Exception, timeout_s: float) -> str:
    if isinstance(error, PermissionError):
        who = "only root may order the agent" if place.name == EVENTS_SOCKET else "see the folder's permissions"
        return f"{place}: permission denied: {who}"
    if isinstance(error, TimeoutError):
        return f"{place}: no answer in {timeout_s:g} s: see `systemctl status wattkeeper`"
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return f"{place}: no agent is listening: is it running? See `systemctl status wattkeeper`, or use --run-dir"
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return f"{place}: {reason}: see `systemctl status wattkeeper`"


def installed_settings() -> "Settings":
    """This node's settings: the defaults where there are none, or where they are not for this user to read.

    Raises SettingsError for a file with mistakes in it, or one that others can change: its paths are not believed.
    """
    # Here, because YAML is slow to import.
    from wattkeeper.config.settings import DEFAULT_PATH, Settings, load_settings, settings_file

    path = settings_file()
    if path is None or (path == DEFAULT_PATH and not os.access(path, os.R_OK) and not path.is_symlink()):
        return Settings()
    try:
        return load_settings(path)
    except ConfigError as error:
        first, *others = error.problems
        more = f" (and {len(others)} more)" if others else ""
        raise SettingsError(f"{first}{more}; see `wattkeeper check`") from None


def run_dir_option(command: F) -> F:
    """The option ``--run-dir`` of every command that talks to the agent."""
    return click.option(
        "--run-dir",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="WATTKEEPER_RUN_DIR",
        help="Where the agent's sockets are [WATTKEEPER_RUN_DIR, else the settings', else /run/wattkeeper].",
    )(command)


def client(run_dir: Path | None, timeout_s: float = 5.0) -> AgentClient:
    """The agent in the folder named, or in the one of this node's settings.

    An agent goes on by the settings that it began with: where the file can no longer be used that is said, and the
    agent is looked for in the usual place.
    """
    if run_dir is None:
        try:
            run_dir = installed_settings().run_dir
        except SettingsError as error:
            run_dir = DEFAULT_RUN_DIR
            click.echo(f"wattkeeper: {error}; looking for the agent in {run_dir}, else use --run-dir", err=True)
    return AgentClient(run_dir, timeout_s)
