"""`python -m tests.lab up | down | status | shell`: a lab that stays up between commands."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, Never

from tests.lab.keeper import alive
from tests.lab.lab import Lab
from tests.lab.processes import LabError
from tests.lab.spec import REPO, LabSpec, NodeSpec

FOLDER = REPO / ".lab"
STATE = FOLDER / "current.json"
LOG = FOLDER / "lab.log"

GUIDE = """\
The lab is up: {nodes} nodes of {gpus} {model}{agents}. For Slurm's commands, first: . {env}

  submit     sbatch --gres=gpu:2 --comment="power=250W" --output=/tmp/%j.out --wrap "{nvml}; sleep 60"
  look       squeue; sinfo -N
             {command} status
             SLURMD_NODENAME=node1 {nvml}
             tail -f {root}/node1/agent.log
{prometheus}  stop       make lab-down
"""


def current() -> dict[str, Any] | None:
    """The lab that is up, if one is."""
    try:
        state: dict[str, Any] = json.loads(STATE.read_text())
    except (OSError, ValueError):
        return None
    return state if alive(state["pid"]) and Path(state["root"]).exists() else None


def hold(spec: LabSpec) -> Never:
    """Brings the lab up, notes it, and holds it until SIGTERM."""

    def end(number: int, frame: FrameType | None) -> None:
        STATE.unlink(missing_ok=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)  # a blocked signal would stay blocked in every program of the lab
    signal.signal(signal.SIGINT, end)
    with Lab(spec) as lab:
        env = lab.files.root / "env.sh"
        # Another spelling of the same path: a program with the lab's own one in its environment is ended with the lab,
        # and these are the user's own shells.
        root = lab.files.root
        spelled = f"{root.parent}/./{lab.files.slurm_conf.relative_to(root.parent)}"
        env.write_text(f"export PATH='{lab.env['PATH']}'\nexport SLURM_CONF='{spelled}'\n")
        first = lab.node(1)
        state = {
            "pid": os.getpid(),
            "root": str(lab.files.root),
            "env": str(env),
            "nvml": lab.nvml,
            "command": str(first.files.command),
            "nodes": len(lab.nodes),
            "gpus": spec.nodes[0].gpus,
            "model": spec.nodes[0].model,
            "agents": ", an agent on each" if spec.agents else ", no agents",
            "prometheus": f"             {lab.prometheus.url}\n" if lab.prometheus else "",
        }
        STATE.write_text(json.dumps(state, indent=1) + "\n")
        while True:
            signal.pause()


def up(words: list[str]) -> int:
    if state := current():
        print(GUIDE.format(**state))
        print(f"(it was up already, in {state['root']})")
        return 0
    FOLDER.mkdir(exist_ok=True)
    STATE.unlink(missing_ok=True)
    with LOG.open("wb") as log:
        holder = subprocess.Popen(
            [sys.executable, "-m", "tests.lab", "hold", *words],
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while holder.poll() is None:
        if state := current():
            print(GUIDE.format(**state))
            return 0
        time.sleep(0.05)
    sys.stderr.write(f"the lab did not come up:\n{LOG.read_text(errors='replace')}")
    return 1


def down() -> int:
    state = current()
    if state is None:
        print("no lab is up")
        return 0
    os.kill(state["pid"], signal.SIGTERM)
    end = time.monotonic() + 60
    while alive(state["pid"]) or Path(state["root"]).exists():
        if time.monotonic() > end:
            sys.stderr.write(f"process {state['pid']} still holds the lab in {state['root']}\n")
            return 1
        time.sleep(0.05)
    print("the lab is down")
    return 0


def status() -> int:
    state = current()
    if state is None:
        print("no lab is up")
        return 1
    print(GUIDE.format(**state), flush=True)
    return subprocess.run(["sh", "-c", f". {state['env']}; sinfo -N; squeue"]).returncode  # noqa: S607


def shell() -> int:
    state = current()
    if state is None:
        sys.stderr.write("no lab is up: `make lab` brings one up\n")
        return 1
    command = f'. {state["env"]}; exec "${{SHELL:-/bin/sh}}"'
    return subprocess.run(["sh", "-c", command]).returncode  # noqa: S607


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "shell", "hold"])
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--gpus", type=int, default=4, help="on every node")
    parser.add_argument("--model", default="H100")
    parser.add_argument("--shards", type=int, default=0, help="on every node, spread over its GPUs")
    parser.add_argument("--no-agents", action="store_true")
    parser.add_argument("--no-prometheus", action="store_true")
    given = parser.parse_args()
    node = NodeSpec(gpus=given.gpus, model=given.model, shards=given.shards)
    spec = LabSpec((node,) * given.nodes, agents=not given.no_agents, prometheus=not given.no_prometheus)
    commands = {"down": down, "status": status, "shell": shell}
    try:
        if given.command == "hold":
            hold(spec)
        return up(sys.argv[2:]) if given.command == "up" else commands[given.command]()
    except LabError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
