"""The shipped Prolog and Epilog, run as slurmd runs them: a bare environment, no PATH, no HOME."""

import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.lab.listener import Listener, running_as_root, uptime_s
from tests.lab.spec import REPO
from tests.lab.waiting import record

HOOKS = {event: REPO / "deploy" / "slurm" / f"{event}.d" / "50-wattkeeper" for event in ("prolog", "epilog")}
BOUND_S = {"prolog": 2.0, "epilog": 0.5}
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"]}
PATIENT = {
    "prolog": {"deadline=1.7": "deadline=20"},
    "epilog": {"deadline=0.25": "deadline=20", "total=46": "total=2000", "'0.%02d'": "'%d'"},
}
"""What a hook says of time, and what a test says instead that is not about it: a busy machine is slow to answer."""

as_shipped = pytest.mark.parametrize("patient", [False], ids=["as-shipped"])
EVENT = re.compile(r"^\d{9}\.\d{2}-\d+\.(prolog|epilog)$")

JOB = {
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_GPUS": "0,1",
    "SLURM_JOB_UID": "1000",
    "SLURM_JOB_COMMENT": 'power=250W\nSLURM_JOB_GPUS=7 "$(reboot)" `id` \\ \x1b[31m é',
    "SLURM_JOB_ACCOUNT": "",
}


@dataclass(frozen=True)
class Ran:
    returncode: int
    stdout: str
    stderr: str
    took_s: float
    environment: bytes


@dataclass
class Hook:
    """One hook under one shell, against a run_dir of its own."""

    event: str
    shell: str
    run_dir: Path
    script: Path

    @property
    def socket(self) -> Path:
        return self.run_dir / "events.sock"

    @property
    def spool(self) -> Path:
        return self.run_dir / "spool"

    def run(self, env: dict[str, str] | None = None, **more: str) -> Ran:
        variables = {**(JOB if env is None else env), "WATTKEEPER_RUN_DIR": str(self.run_dir), **more}
        argv = [shutil.which(SHELLS[self.shell][0]) or self.shell, *SHELLS[self.shell][1:], str(self.script)]
        start = time.monotonic()
        done = subprocess.run(
            argv, env=variables, capture_output=True, stdin=subprocess.DEVNULL, text=True, errors="replace", timeout=60
        )
        took = time.monotonic() - start
        block = b"".join(f"{key}={value}\0".encode() for key, value in variables.items())
        return Ran(done.returncode, done.stdout, done.stderr, took, block)

    def events(self) -> list[Path]:
        return sorted(path for path in self.spool.glob("*") if EVENT.match(path.name)) if self.spool.exists() else []

    def leftovers(self) -> list[str]:
        if not self.spool.is_dir():
            return []
        return [name for name in os.listdir(self.spool) if not EVENT.match(name)]  # noqa: PTH208 - hidden ones too


@pytest.fixture(params=["dash", "bash"])
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(SHELLS[name][0]) is None:
        pytest.skip(f"{name} is not installed on this machine")
    return name


@pytest.fixture(params=["prolog", "epilog"])
def event(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A short path: a unix socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="wk-hook-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def patient() -> bool:
    return True


@pytest.fixture
def script(event: str, patient: bool, tmp_path: Path) -> Path:
    """The hook as shipped, or a copy that has all the time it may need."""
    if not patient:
        return HOOKS[event]
    text = HOOKS[event].read_text()
    for ours, longer in PATIENT[event].items():
        assert text.count(ours) == 1, ours
        text = text.replace(ours, longer)
    copy = tmp_path / HOOKS[event].name
    copy.write_text(text)
    copy.chmod(0o755)
    return copy


@pytest.fixture
def hook(event: str, shell: str, run_dir: Path, script: Path) -> Hook:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed on this machine")
    return Hook(event, shell, run_dir, script)


def one_line(text: str) -> bool:
    return text.count("\n") == 1 and text.endswith("\n")


def spooled(hook: Hook, ran: Ran) -> None:
    """The event waits in the spool, byte for byte, and slurmd's log has one line about it."""
    assert ran.returncode == 0
    assert ran.stdout == ""
    assert one_line(ran.stderr), ran.stderr
    assert f"wattkeeper {hook.event}: job 12: " in ran.stderr
    (path,) = hook.events()
    assert path.read_bytes() == ran.environment
    assert hook.leftovers() == []


def test_posts_the_environment_byte_for_byte(hook: Hook) -> None:
    with Listener(hook.socket, body=b"thank you\n") as agent:
        ran = hook.run()
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert agent.seen == [("POST", f"/v1/events/{hook.event}", "application/octet-stream", ran.environment)]
    assert not hook.spool.exists()


def test_a_large_environment_is_posted_whole(hook: Hook) -> None:
    env = {**JOB, **{f"SPANK_FILLER_{n}": "x" * 1000 for n in range(200)}}
    with Listener(hook.socket) as agent:
        ran = hook.run(env)
    assert [body for *_, body in agent.seen] == [ran.environment]


def test_proxies_are_not_asked(hook: Hook) -> None:
    with Listener(hook.socket) as agent:
        assert hook.run(http_proxy="http://127.0.0.1:9", ALL_PROXY="http://127.0.0.1:9").stderr == ""
    assert len(agent.seen) == 1


@pytest.mark.parametrize("status", [201, 204])
def test_every_success_is_one(hook: Hook, status: int) -> None:
    with Listener(hook.socket, status):
        ran = hook.run()
    assert (ran.returncode, ran.stderr, hook.events()) == (0, "", [])


def test_without_an_agent_the_event_is_spooled(hook: Hook) -> None:
    """For Slurm's user, and the group of ``run_dir``: the agent's."""
    spooled(hook, hook.run())
    assert stat.S_IMODE(hook.spool.stat().st_mode) == 0o2770
    assert stat.S_IMODE(hook.events()[0].stat().st_mode) == 0o640
    assert hook.events()[0].stat().st_gid == hook.run_dir.stat().st_gid


@pytest.mark.skipif(not running_as_root(), reason="only root can give a group away")
def test_what_is_spooled_belongs_to_the_group_of_the_folder(hook: Hook) -> None:
    os.chown(hook.run_dir, 0, 12_345)
    hook.run()
    hook.run()
    assert hook.spool.stat().st_gid == 12_345
    assert [(event.stat().st_gid, stat.S_IMODE(event.stat().st_mode)) for event in hook.events()] == [
        (12_345, 0o640),
        (12_345, 0o640),
    ]


def test_a_link_in_the_spools_place_is_not_followed(hook: Hook) -> None:
    elsewhere = hook.run_dir / "elsewhere"
    elsewhere.mkdir()
    hook.spool.symlink_to(elsewhere)
    ran = hook.run()
    assert (ran.returncode, list(elsewhere.iterdir())) == (0, [])
    assert one_line(ran.stderr)
    assert "the event is lost" in ran.stderr


@pytest.mark.parametrize("trap", ["scratch", "name"])
def test_a_link_that_waits_for_the_event_is_not_followed(hook: Hook, trap: str) -> None:
    """Whoever may write to the spool knows the time, and can guess the process: a `mv` that is slow to begin."""
    hook.spool.mkdir()
    victim, folder = hook.run_dir / "victim", hook.run_dir / "folder"
    victim.write_text("dear")
    folder.mkdir()
    tools = hook.run_dir / "bin"
    tools.mkdir()
    slow = tools / ("dd" if trap == "scratch" else "mv")
    plant = f'ln -s {victim} "${{2#of=}}"' if trap == "scratch" else f'ln -s {folder} "$3"'
    slow.write_text(f'#!/bin/sh\n{plant}\nexec {shutil.which(slow.name)} "$@"\n')
    slow.chmod(0o755)
    script = hook.run_dir / "hook"
    script.write_text(hook.script.read_text().replace("PATH=/usr/local/sbin", f"PATH={tools}:/usr/local/sbin"))
    script.chmod(0o755)
    ran = replace(hook, script=script).run()
    assert (ran.returncode, victim.read_text(), list(folder.iterdir())) == (0, "dear", [])
    if trap == "name":
        spooled(hook, ran)
    else:
        assert "the event is lost" in ran.stderr
        assert hook.leftovers() == []


def test_a_dead_agents_socket_is_refused_and_the_event_spooled(hook: Hook) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(hook.socket))
    spooled(hook, hook.run())


@pytest.mark.parametrize("status", [302, 400, 404, 500, 503])
def test_an_agent_that_answers_with_an_error_leaves_the_event_in_the_spool(hook: Hook, status: int) -> None:
    with Listener(hook.socket, status, b"went wrong\nbadly\n"):
        spooled(hook, hook.run())


@as_shipped
def test_an_agent_that_hangs_holds_the_hook_no_longer_than_its_deadline(hook: Hook) -> None:
    with Listener(hook.socket, delay_s=30):
        ran = hook.run()
    spooled(hook, ran)
    record(f"{hook.event} with a hung agent ({hook.shell})", ran.took_s, BOUND_S[hook.event])


@as_shipped
def test_an_agent_that_accepts_nothing_holds_the_hook_no_longer_than_its_deadline(hook: Hook) -> None:
    """The kernel takes the connection, nobody reads: a stopped process."""
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(hook.socket))
        stopped.listen(5)
        ran = hook.run()
    spooled(hook, ran)
    record(f"{hook.event} with a stopped agent ({hook.shell})", ran.took_s, BOUND_S[hook.event])


@pytest.mark.parametrize("kind", ["file", "folder", "fifo", "broken link"])
def test_what_is_no_socket_is_no_agent(hook: Hook, kind: str) -> None:
    make: dict[str, Callable[[], None]] = {
        "file": hook.socket.touch,
        "folder": hook.socket.mkdir,
        "fifo": lambda: os.mkfifo(hook.socket),
        "broken link": lambda: hook.socket.symlink_to("nowhere"),
    }
    make[kind]()
    spooled(hook, hook.run())


def test_without_a_run_dir_it_says_so(hook: Hook) -> None:
    ran = hook.run(WATTKEEPER_RUN_DIR=f"{hook.run_dir}/absent")
    assert ran.returncode == 0
    assert one_line(ran.stderr)
    assert "is the agent installed?" in ran.stderr
    assert not (hook.run_dir / "absent").exists()


def test_where_nothing_can_be_written_the_event_is_lost_and_said_so(hook: Hook) -> None:
    """A file in the spool's place refuses root as well as anybody."""
    hook.spool.touch()
    ran = hook.run()
    assert ran.returncode == 0
    assert one_line(ran.stderr)
    assert "the event is lost" in ran.stderr


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount, and not on every machine")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


def test_a_read_only_run_dir_is_survived(hook: Hook) -> None:
    """Root may write whatever the mode says, so root gets a read-only mount."""
    hook.run_dir.chmod(0o500)
    try:
        with mounted(hook.run_dir, "ro") if running_as_root() else nullcontext():
            ran = hook.run()
    finally:
        hook.run_dir.chmod(0o700)
    assert ran.returncode == 0
    assert one_line(ran.stderr)
    assert "the event is lost" in ran.stderr


def test_a_full_disk_leaves_no_half_event(hook: Hook) -> None:
    hook.spool.mkdir(mode=0o700)
    with mounted(hook.spool, "size=4k,mode=700"):
        ran = hook.run({**JOB, "SPANK_FILLER": "x" * 20000})
        assert ran.returncode == 0
        assert "the event is lost" in ran.stderr
        assert (hook.events(), hook.leftovers()) == ([], [])


@as_shipped
def test_the_spool_is_bounded(hook: Hook) -> None:
    hook.spool.mkdir(mode=0o700)
    for number in range(4096):
        (hook.spool / f"000000001.00-{number}.prolog").touch()
    ran = hook.run()
    assert ran.returncode == 0
    assert one_line(ran.stderr)
    assert "is full: the event is dropped" in ran.stderr
    assert len(hook.events()) == 4096
    record(f"{hook.event} with a full spool ({hook.shell})", ran.took_s, BOUND_S[hook.event])


def test_names_sort_by_time_since_boot(hook: Hook) -> None:
    before = uptime_s()
    events: list[Path] = []
    for _ in range(3):
        hook.run()
        events += [path for path in hook.events() if path not in events]
        time.sleep(0.02)
    assert len(events) == 3
    assert events == hook.events(), "the order of their names"
    times = [float(path.name.partition("-")[0]) for path in events]
    assert before - 0.02 <= times[0]
    assert times[-1] <= uptime_s()
    assert {path.suffix for path in events} == {f".{hook.event}"}


def test_a_reader_of_stderr_that_went_away_does_not_end_the_hook(hook: Hook) -> None:
    """slurmd closed the pipe: writing to it raises SIGPIPE."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [SHELLS[hook.shell][0], *SHELLS[hook.shell][1:], str(hook.script)],
            env={**JOB, "WATTKEEPER_RUN_DIR": str(hook.run_dir)},
            executable=shutil.which(SHELLS[hook.shell][0]),
            stderr=write_end,
            stdout=write_end,
            timeout=30,
        )
    finally:
        os.close(write_end)
    assert done.returncode == 0
    assert len(hook.events()) == 1


def test_users_text_is_never_printed(hook: Hook) -> None:
    ran = hook.run()
    assert "reboot" not in ran.stderr
    assert "\x1b" not in ran.stderr


def test_the_rest_of_the_environment_changes_nothing(hook: Hook) -> None:
    """Variables that shells and tools obey."""
    with Listener(hook.socket) as agent:
        ran = hook.run(IFS="/0", ENV="/absent", CURL_HOME="/absent", POSIXLY_CORRECT="1", PATH="/absent", TMPDIR="/x")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert agent.seen[0][3] == ran.environment


def test_the_hooks_share_their_spool(shell: str) -> None:
    """The two files stand alone, so that an admin reads one of them: what they have in common stays the same."""

    def function(event: str, name: str) -> str:
        found = re.search(rf"^{name}\(\) \{{.*?^\}}$", HOOKS[event].read_text(), re.MULTILINE | re.DOTALL)
        assert found, name
        return found[0]

    assert function("prolog", "spool") == function("epilog", "spool")


class TestProlog:
    @pytest.fixture
    def event(self) -> str:
        return "prolog"

    @pytest.mark.parametrize("gpus", [None, ""])
    def test_a_job_without_gpus_is_none_of_its_business(self, hook: Hook, gpus: str | None) -> None:
        env = {key: value for key, value in JOB.items() if key != "SLURM_JOB_GPUS"}
        with Listener(hook.socket) as agent:
            ran = hook.run(env if gpus is None else {**env, "SLURM_JOB_GPUS": gpus})
        assert (ran.returncode, ran.stderr, agent.seen, hook.events()) == (0, "", [], [])

    def test_strict_fails_the_job_with_the_agents_reason(self, hook: Hook) -> None:
        with Listener(hook.socket, 409, b"GPU 0: no permission\x1b[31m to set a limit\nmend: run as root\n"):
            ran = hook.run()
        assert ran.returncode == 1
        assert one_line(ran.stderr)
        assert "refused: GPU 0: no permission [31m to set a limit mend: run as root" in ran.stderr
        assert hook.events() == []


class TestEpilog:
    @pytest.fixture
    def event(self) -> str:
        return "epilog"

    def test_without_gpus_in_the_environment_it_is_told_all_the_same(self, hook: Hook) -> None:
        """After a restart of slurmctld the Epilog of a job with GPUs carries none."""
        env = {key: value for key, value in JOB.items() if key != "SLURM_JOB_GPUS"}
        with Listener(hook.socket) as agent:
            ran = hook.run(env)
        assert agent.seen[0][3] == ran.environment

    def test_a_conflict_is_no_reason_to_fail_an_epilog(self, hook: Hook) -> None:
        with Listener(hook.socket, 409, b"no\n"):
            spooled(hook, hook.run())

    def command(self, hook: Hook, text: str) -> str:
        path = hook.run_dir / "wattkeeper"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def test_gives_the_gpus_back_where_no_agent_answers(self, hook: Hook) -> None:
        note = hook.run_dir / "note"
        command = self.command(hook, f'echo "$@ $SLURM_JOB_GPUS" >{note}; ls {hook.spool} >>{note}; exit 3')
        ran = hook.run(WATTKEEPER_COMMAND=command)
        spooled(hook, ran)
        words, event = note.read_text().splitlines()
        assert words == "hook give-back 0,1"
        assert event == hook.events()[0].name, "the event is safe before anything slow is begun"

    def test_leaves_the_gpus_to_an_agent_that_answers(self, hook: Hook) -> None:
        note = hook.run_dir / "note"
        with Listener(hook.socket):
            hook.run(WATTKEEPER_COMMAND=self.command(hook, f"touch {note}"))
        assert not note.exists()

    @as_shipped
    @pytest.mark.parametrize("stubborn", [False, True], ids=["polite", "deaf"])
    @pytest.mark.parametrize("agent", ["none", "hung"])
    def test_a_slow_giving_back_is_cut_off(self, hook: Hook, agent: str, stubborn: bool) -> None:
        deaf = "trap '' TERM; " if stubborn else ""
        command = self.command(hook, f"{deaf}exec sleep 20")
        with Listener(hook.socket, delay_s=30):
            if agent == "none":
                hook.socket.unlink()
            ran = hook.run(WATTKEEPER_COMMAND=command)
        spooled(hook, ran)
        assert ("no agent is listening" if agent == "none" else "did not answer within 0.25 s") in ran.stderr
        assert ran.took_s >= 0.4, "the GPUs had no chance: giving back takes what is left of 0.46 s"
        record(f"epilog, agent {agent}, giving back hangs ({hook.shell})", ran.took_s, BOUND_S["epilog"])


class TestWithoutCurl:
    """curl is taken away by a copy of the hook whose fixed PATH leads to everything else."""

    @pytest.fixture
    def bare(self, event: str, shell: str, run_dir: Path, script: Path) -> Hook:
        tools = run_dir / "bin"
        tools.mkdir()
        for name in ("dd", "chgrp", "mv", "rm", "mkdir", "timeout", "tr", "cut", "sh"):
            (tools / name).symlink_to(shutil.which(name) or name)
        text, count = re.subn(r"^PATH=.*$", f"PATH={tools}", script.read_text(), flags=re.MULTILINE)
        assert count == 1
        copy = run_dir / "hook"
        copy.write_text(text)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(run_dir / "events.sock"))
        return Hook(event, shell, run_dir, copy)

    def test_and_without_the_command_the_event_is_spooled(self, bare: Hook) -> None:
        spooled(bare, bare.run())

    def test_the_command_takes_the_event(self, bare: Hook) -> None:
        note = bare.run_dir / "note"
        command = bare.run_dir / "bin" / "wattkeeper"
        command.write_text(f'#!/bin/sh\necho "$@ $SLURM_JOB_GPUS" >{note}\n')
        command.chmod(0o755)
        ran = bare.run()
        assert (ran.returncode, ran.stderr, bare.events()) == (0, "", [])
        assert note.read_text() == f"hook {bare.event} 0,1\n"

    def test_a_crash_of_the_command_is_no_refusal(self, bare: Hook) -> None:
        """Python ends a program that raised with status 1: that must not drain a node."""
        command = bare.run_dir / "bin" / "wattkeeper"
        command.write_text("#!/bin/sh\nexit 1\n")
        command.chmod(0o755)
        spooled(bare, bare.run())

    @as_shipped
    @pytest.mark.parametrize("stubborn", [False, True], ids=["polite", "deaf"])
    def test_a_command_that_hangs_is_cut_off(self, bare: Hook, stubborn: bool) -> None:
        command = bare.run_dir / "bin" / "wattkeeper"
        deaf = "trap '' TERM; " if stubborn else ""
        command.write_text(f"#!/bin/sh\n{deaf}exec {shutil.which('sleep')} 30\n")
        command.chmod(0o755)
        ran = bare.run()
        spooled(bare, ran)
        record(f"{bare.event} without curl, the command hangs ({bare.shell})", ran.took_s, BOUND_S[bare.event])
