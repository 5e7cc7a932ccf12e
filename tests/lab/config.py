"""The text of every file that the lab's programs read."""

import json
import os
import pwd
import re
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab.spec import REPO, Files, LabSpec, NodeFiles, NodeSpec

# A GPU's `File=` must resolve to a character device: links to these need no privilege, a plain file gives a job no GPU.
CHARACTER_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx")


def user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def slurm_conf(
    files: Files, spec: LabSpec, ctld_port: int, slurmd_ports: list[int], accounting: Mapping[str, str] | None = None
) -> str:
    """`accounting`: lines for a slurmdbd."""
    lines = {
        "ClusterName": "lab",
        "SlurmctldHost": "localhost(127.0.0.1)",
        "SlurmctldPort": str(ctld_port),
        "SlurmUser": user(),
        "SlurmdUser": user(),
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={files.munge}/munge.sock",
        "CredType": "cred/munge",
        "StateSaveLocation": f"{files.root}/ctld",
        "SlurmdSpoolDir": f"{files.root}/%n/slurmd",
        "SlurmctldPidFile": f"{files.root}/ctld.pid",
        "SlurmdPidFile": f"{files.root}/%n/slurmd.pid",
        "SlurmdLogFile": f"{files.log}/slurmstepd-%n.log",  # slurmd logs there too, but only steps need it
        "SlurmctldDebug": "info",
        "SlurmdDebug": "info",
        "LogTimeFormat": "iso8601_ms",
        "MailProg": "/bin/true",
        "MpiDefault": "none",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SwitchType": "switch/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "DefMemPerCPU": "50",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=2000",
        "SlurmdParameters": "config_overrides",
        "JobAcctGatherType": "jobacct_gather/linux",
        "AccountingStorageType": "accounting_storage/none",
        "ReturnToService": "2",
        "KillWait": "1",
        "CompleteWait": "0",
        "MinJobAge": "300",
        "GresTypes": "gpu,shard",
        "PlugStackConfig": f"{files.etc}/plugstack.conf",
        "Prolog": f"{files.hooks}/prolog",
        "Epilog": f"{files.hooks}/epilog",
        "TaskProlog": f"{files.hooks}/taskprolog",
        "PrologFlags": spec.prolog_flags,
        **(accounting or {}),
    }
    more = [line for line in spec.slurm_conf if line.partition("=")[0] not in lines]
    lines |= {key: value for key, _, value in (line.partition("=") for line in spec.slurm_conf) if key in lines}
    host = socket.gethostname().partition(".")[0]
    nodes = [
        f"NodeName=node{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={node.cpus} RealMemory=16000"
        f" Gres={node.gres} Feature={node.gres_type} State=UNKNOWN"
        for n, (node, port) in enumerate(zip(spec.nodes, slurmd_ports, strict=True), start=1)
    ]
    partitions = [
        "PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 State=UP",
        "PartitionName=debug Nodes=ALL MaxTime=INFINITE DefaultTime=10 State=UP",
        "PartitionName=shared Nodes=ALL OverSubscribe=FORCE:4 MaxTime=INFINITE DefaultTime=10 State=UP",
    ]
    return "\n".join([*(f"{key}={value}" for key, value in lines.items() if value), *more, *nodes, *partitions, ""])


def _file_list(minors: tuple[int, ...]) -> str:
    """`[0-3]`, or `[2,0,5]`: the hostlist that keeps the order."""
    if list(minors) == list(range(minors[0], minors[0] + len(minors))) and len(minors) > 1:
        return f"[{minors[0]}-{minors[-1]}]"
    return f"[{','.join(map(str, minors))}]" if len(minors) > 1 else str(minors[0])


def gres_conf(files: Files, spec: LabSpec) -> str:
    lines = []
    for n, node in enumerate(spec.nodes, start=1):
        name = f"node{n}"
        if node.gres_minors:
            device = f"{files.node(name).devices}/nvidia{_file_list(node.gres_minors)}"
            lines.append(f"NodeName={name} Name=gpu Type={node.gres_type} File={device}")
        if node.shards:
            lines.append(f"NodeName={name} Name=shard Count={node.shards}")
    return "".join(f"{line}\n" for line in lines)


def make_devices(node: NodeFiles, spec: NodeSpec) -> None:
    node.devices.mkdir()
    for minor in range(max([spec.gpus, *(minor + 1 for minor in spec.gres_minors)])):
        target = f"/dev/{CHARACTER_DEVICES[minor % len(CHARACTER_DEVICES)]}"
        (node.devices / f"nvidia{minor}").symlink_to(target)


def hook_wrapper(files: Files, hook: Path) -> str:
    """Runs a hook against the run_dir of the node it is on."""
    node = f"{files.root}/$SLURMD_NODENAME"
    return (
        f'#!/bin/sh\nexport WATTKEEPER_RUN_DIR="{node}/run" WATTKEEPER_COMMAND="{node}/wattkeeper"\n'
        f"exec {shlex.quote(str(hook))}\n"
    )


def patient(snippet: Path, folder: Path) -> Path:
    """A copy of the TaskProlog or TaskEpilog that waits for the agent 3 s and not 0.3: a loaded machine is slow."""
    text = snippet.read_text()
    assert text.count("--max-time 0.3 ") == 1
    copy = folder / snippet.name
    copy.write_text(text.replace("--max-time 0.3 ", "--max-time 3 "))
    copy.chmod(0o755)
    return copy


def agent_settings(files: Files, node: NodeFiles, spec: NodeSpec, metrics_port: int) -> dict[str, Any]:
    """The agent's settings of one node; `spec.settings` is laid over them, one level deep."""
    settings: dict[str, Any] = {
        "node": node.name,
        "interval": "1s",
        "run_dir": str(node.run_dir),
        "state_dir": str(node.state_dir),
        "policies": str(node.policies),
        "metrics": {"listen": f"127.0.0.1:{metrics_port}"},
        "slurm": {"conf": str(files.slurm_conf), "event_users": [user()]},
    }
    for key, value in spec.settings.items():
        nested = isinstance(value, dict) and isinstance(settings.get(key), dict)
        settings[key] = {**settings[key], **value} if nested else value
    return settings


def node_command(node: NodeFiles, simulated: dict[str, str]) -> str:
    """`wattkeeper` with the node's simulated GPUs and settings, for a shell and for the hooks."""
    exports = {**simulated, "WATTKEEPER_CONFIG": str(node.settings), "WATTKEEPER_RUN_DIR": str(node.run_dir)}
    lines = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in exports.items())
    return f'#!/bin/sh\n{lines}exec {shlex.quote(wattkeeper())} "$@"\n'


def wattkeeper() -> str:
    return str(Path(sys.executable).with_name("wattkeeper"))


def nvml_command(files: Files) -> str:
    """The job's own look at its node's GPUs: another process, another loading of the library."""
    client = REPO / "tests" / "lab" / "nvml_client.py"
    return (
        f'#!/bin/sh\n. "{files.root}/${{SLURMD_NODENAME:?}}/sim.env"\n'
        f'exec {shlex.quote(sys.executable)} {shlex.quote(str(client))} "$@"\n'
    )


def often(rules: str) -> str:
    """A file of rules whose groups are evaluated as often as the lab's Prometheus says, and not as theirs do."""
    return re.sub(r"^ +interval: .*\n", "", rules, flags=re.MULTILINE)


def prometheus_yml(
    targets: dict[str, int], rule_files: Sequence[Path] = (), more: Sequence[Any] = (), scrape_s: int = 1
) -> str:
    """`more`: further scrape configurations."""
    return json.dumps(
        {
            "global": dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), f"{scrape_s}s"),
            "rule_files": [str(path) for path in rule_files],
            "scrape_configs": [
                {
                    "job_name": "wattkeeper",
                    "static_configs": [
                        {"targets": [f"127.0.0.1:{port}"], "labels": {"node": name}} for name, port in targets.items()
                    ],
                },
                *more,
            ],
        },
        indent=1,
    )
