"""What other users of the node may do and see: nothing of the hooks' socket, and of jobs only their own."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.agents import TICK_S, hook_environment, limits, post, set_behind, start_afresh
from tests.e2e.attackers import only_root, tried_by
from tests.lab import Lab, Node, wait_until
from tests.lab.processes import program
from tests.lab.spec import REPO

NOBODY = 65534
CANNOT_CONNECT = 7  # curl's exit code

pytestmark = only_root


@pytest.fixture
def node(one_agent: Lab) -> Node:
    """Job 1 of user 1000 on GPU 0, job 2 of nobody on GPU 1."""
    node = one_agent.node(1)
    start_afresh(node)
    assert post(node, "prolog", 1, JOB_COMMENT="secret power=250W", JOB_ACCOUNT="hush") == "applied"
    assert post(node, "prolog", 2, "1", uid=NOBODY, JOB_COMMENT="power=350W") == "applied"
    return node


def as_nobody(socket: Path, url: str, body: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """A request by user nobody: what came back, and after it a line with HTTP's status."""
    post_it = [] if body is None else ["--data-binary", "@-"]
    return subprocess.run(
        [program("curl"), "-q", "-sS", "--max-time", "5", "-w", "\n%{http_code}", "--unix-socket", str(socket),
         *post_it, f"http://localhost{url}"],
        input=None if body is None else body.decode(),
        capture_output=True,
        text=True,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
    )  # fmt: skip


def seen_by_nobody(node: Node, url: str) -> tuple[int, Any]:
    done = as_nobody(node.agent.read_socket, url)
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body) if body.startswith("{") else body


def test_the_hooks_socket_is_closed_to_others(node: Node) -> None:
    assert node.agent.events_socket.stat().st_mode & 0o777 == 0o600
    for url in ("/v1/events/prolog", "/v1/events/epilog", "/v1/control/restore"):
        done = as_nobody(node.agent.events_socket, url, hook_environment(1))
        assert done.returncode == CANNOT_CONNECT, done.stdout
    assert limits(node) == {0: 250, 1: 350, 2: 700, 3: 700}


def test_and_stays_closed_where_somebody_opened_its_mode(node: Node) -> None:
    """The kernel says who is at the other end."""
    node.agent.events_socket.chmod(0o666)
    for url in ("/v1/events/prolog", "/v1/events/epilog", "/v1/control/restore", "/v1/control/hold"):
        done = as_nobody(node.agent.events_socket, url, hook_environment(1))
        assert (done.returncode, done.stdout.rpartition("\n")[2]) == (0, "403")
    assert limits(node) == {0: 250, 1: 350, 2: 700, 3: 700}
    assert "refused POST /v1/control/restore from uid 65534" in node.agent.log_text()
    set_behind(node, 0, 500)
    wait_until(lambda: limits(node)[0] == 250, TICK_S + 1, "nobody holds the GPU", note=False)


def test_a_user_sees_the_node_but_no_other_users_job(node: Node) -> None:
    status, seen = seen_by_nobody(node, "/v1/status")
    assert status == 200
    assert [gpu["limit_w"] for gpu in seen["gpus"]] == [250, 350, 700, 700]
    assert [gpu["holders"] for gpu in seen["gpus"]] == [["another user's job"], ["2"], [], []]
    assert [job["job_id"] for job in seen["jobs"]] == [2]
    assert not any(word in json.dumps(seen) for word in ("user1000", "hush", "secret"))
    root = node.agent.get("/v1/status")
    assert [gpu["holders"] for gpu in root["gpus"]] == [["1"], ["2"], [], []]
    assert [job["job_id"] for job in root["jobs"]] == [1, 2]


def test_another_users_job_is_as_if_it_were_not_there(node: Node) -> None:
    mine, other, none = (seen_by_nobody(node, f"/v1/jobs/{job}") for job in (2, 1, 3))
    assert mine[0] == 200
    assert mine[1]["gpus"][0]["cap_w"] == 350
    assert other[0] == none[0] == 404
    assert {key: value.replace("job 1", "job 3").replace("-j 1 ", "-j 3 ") for key, value in other[1].items()} == none[
        1
    ]
    assert seen_by_nobody(node, "/v1/jobs/1/message")[0] == 404
    assert "350 W" in seen_by_nobody(node, "/v1/jobs/2/message")[1]
    assert node.agent.get("/v1/jobs/1")["user"] == "user1000"


def test_no_event_and_no_order_comes_in_through_the_reading_socket(node: Node) -> None:
    for url in ("/v1/events/epilog", "/v1/control/restore"):
        done = as_nobody(node.agent.read_socket, url, hook_environment(1))
        assert done.stdout.rpartition("\n")[2] in {"404", "405"}
    assert limits(node) == {0: 250, 1: 350, 2: 700, 3: 700}


def test_metrics_name_no_users(node: Node) -> None:
    status, page = seen_by_nobody(node, "/metrics")
    assert status == 200
    assert "wattkeeper_job_gpu_power_cap_watts" in page
    assert not any(word in page for word in ("user1000", "secret", 'user="nobody"'))


def test_run_dir_keeps_the_spool_and_baselines_to_their_owners(node: Node) -> None:
    """The spool is the agent's to read as well (wattkeeper.tmpfiles.conf), the baselines are root's alone."""
    modes = {name: (node.files.run_dir / name).stat().st_mode & 0o777 for name in ("spool", "baseline", "lock")}
    assert {name: mode & 0o007 for name, mode in modes.items()} == {"spool": 0, "baseline": 0, "lock": 0}
    assert modes["baseline"] == 0o700
    assert node.files.run_dir.stat().st_mode & 0o1002 == 0o1000


TRY_ALL = """
run_dir, state_dir, policies, settings, *pids = words
pids = [int(pid) for pid in pids]
def write(path, flags=os.O_WRONLY):
    os.close(os.open(path, flags))
for pid in pids:
    for number in signal.valid_signals():
        may(f"signal {number} to {pid}", os.kill, pid, number)
    for name in ("environ", "mem", "fd/", "cwd/"):
        may(f"look into {name}", os.listdir if name[-1] == "/" else open, f"/proc/{pid}/{name}")
for folder in (run_dir, state_dir, policies, f"{run_dir}/spool", f"{run_dir}/baseline"):
    may(f"make a file in {folder}", write, f"{folder}/7-1.prolog", os.O_CREAT | os.O_WRONLY)
    may(f"make a link in {folder}", os.symlink, "/etc/passwd", f"{folder}/link")
    may(f"rename {folder}", os.rename, folder, f"{folder}.old")
    may(f"open {folder} to all", os.chmod, folder, 0o777)
for folder in (state_dir, f"{run_dir}/spool", f"{run_dir}/baseline"):
    may(f"list {folder}", os.listdir, folder)
for file in (f"{run_dir}/lock", f"{state_dir}/state.db", settings, f"{policies}/50-lab.yaml"):
    may(f"write {file}", write, file)
    may(f"remove {file}", os.unlink, file)
    may(f"open {file} to all", os.chmod, file, 0o666)
for name in ("events.sock", "read.sock", "actuator.sock"):
    may(f"remove {name}", os.unlink, f"{run_dir}/{name}")
may("read the ledger", open, f"{state_dir}/state.db")
may("hold the lock", write, f"{run_dir}/lock", os.O_RDONLY)
print(got)
"""


def test_no_file_and_no_signal_is_another_users(node: Node) -> None:
    files, agent = node.files, node.agent
    words = (files.run_dir, files.state_dir, files.policies, files.settings, agent.pid, agent.actuator.pid)
    assert tried_by(NOBODY, TRY_ALL, *words) == "[]\n"
    assert limits(node) == {0: 250, 1: 350, 2: 700, 3: 700}
    set_behind(node, 0, 500)
    wait_until(lambda: limits(node)[0] == 250, TICK_S + 1, "nobody holds the GPU", note=False)


def test_the_way_to_the_actuator_is_closed_to_others(node: Node) -> None:
    path = node.agent.actuator.socket
    for mode, told in ((0o600, False), (0o666, True)):
        path.chmod(mode)
        for uuid in (gpu.uuid for gpu in node.gpus().values()):
            question = json.dumps({"do": "set_limit", "gpu": uuid, "mw": 200_000})
            assert tried_by(NOBODY, ASK, path, question) in (("b''\n", "gone\n") if told else ("gone\n",))
        lines = [line for line in node.agent.actuator.daemon.text().splitlines() if "refused" in line]
        assert [f"uid {NOBODY} may not ask" in line for line in lines] == [True] * told
    assert limits(node) == {0: 250, 1: 350, 2: 700, 3: 700}


ASK = """
try:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(words[0])
        client.send(words[1].encode())
        print(client.recv(1000))
except OSError:
    print("gone")
"""


def test_no_variable_of_another_users_makes_a_command_do_more(node: Node) -> None:
    """Root's own commands aside, whatever a user sets: the sockets and the files are closed to them."""
    path = node.agent.files.root / "elsewhere"
    path.mkdir(mode=0o777, exist_ok=True)
    path.chmod(0o777)
    hostile = {"WATTKEEPER_RUN_DIR": str(path), "WATTKEEPER_FAILPOINT": "event.applied", "PYTHONPATH": str(path)}
    hostile |= {"NOTIFY_SOCKET": str(node.files.notify_socket), "LISTEN_FDS": "1", "LD_PRELOAD": "/nowhere.so"}
    before = node.agent.pid
    for event in ("prolog", "epilog"):
        script = shutil.copy(REPO / "deploy" / "slurm" / f"{event}.d" / "50-wattkeeper", path)
        done = subprocess.run(  # a copy: the checkout may lie where only root can read
            [script],
            env={**os.environ, **hostile, "WATTKEEPER_RUN_DIR": str(node.files.run_dir), "SLURM_JOB_ID": "9",
                 "SLURM_JOB_UID": "0", "SLURM_JOB_GPUS": "0,1,2,3", "SLURM_JOB_COMMENT": "power=min"},
            capture_output=True, text=True, user=NOBODY, group=NOBODY, extra_groups=[], timeout=30,
        )  # fmt: skip
        assert done.returncode == 0
    assert limits(node) == {0: 250, 1: 350, 2: 700, 3: 700}
    assert not node.spooled()
    assert node.agent.alive and node.agent.pid == before
