"""The cluster: brought up, used, and ended whatever happens."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.lab import config, database, slurm
from tests.lab.keeper import members
from tests.lab.node import Node
from tests.lab.processes import Daemon, Keeper, LabError, environment, free_ports, missing_programs
from tests.lab.prometheus import Prometheus
from tests.lab.spec import REPO, Files, LabSpec
from tests.lab.waiting import PATIENCE, wait_until

T = TypeVar("T")


class Lab(slurm.Client):
    """A cluster of its own: own key, ports and folders. Use it as a context manager, or `up()` and `close()`.

    Nothing outlives it: a keeper process kills what belongs to the lab when its owner is gone, however it went.
    """

    def __init__(self, spec: LabSpec | None = None) -> None:
        self.spec = spec or LabSpec()
        needed = [*(["prometheus"] if self.spec.prometheus else []), *(database.PROGRAMS if self.spec.dbd else [])]
        missing = missing_programs(needed)
        if missing:
            raise LabError(f"not installed on this machine: {', '.join(missing)}")
        self.files = Files(Path(tempfile.mkdtemp(prefix="wk-", dir="/tmp")).resolve())
        self.files.root.chmod(0o755)
        self.keeper = Keeper(self.files.root)
        super().__init__(environment(self.files.root, SLURM_CONF=str(self.files.slurm_conf)), self.files.out)
        self.came_up_s = 0.0
        try:
            self._write()
        except BaseException:
            self.close()
            raise

    def _write(self) -> None:
        files, spec = self.files, self.spec
        for folder in (files.etc, files.log, files.out, files.hooks, files.munge, files.root / "ctld"):
            folder.mkdir()
        files.out.chmod(0o1777)
        count = len(spec.nodes)
        ports = free_ports(3 + 2 * count)
        self._ctld_port, prometheus_port, dbd_port = ports[:3]
        slurmd_ports, metrics_ports = ports[3 : 3 + count], ports[3 + count :]
        accounting = database.slurm_conf_lines(files, dbd_port) if spec.dbd else {}
        files.slurm_conf.write_text(config.slurm_conf(files, spec, self._ctld_port, slurmd_ports, accounting))
        self.database = database.Database(files, dbd_port) if spec.dbd else None
        (files.etc / "gres.conf").write_text(config.gres_conf(files, spec))
        (files.etc / "plugstack.conf").touch()
        (files.etc / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nConstrainDevices=no\n")
        shipped = REPO / "deploy" / "slurm"
        hooks = {
            "prolog": shipped / "prolog.d" / "50-wattkeeper",
            "epilog": shipped / "epilog.d" / "50-wattkeeper",
            "taskprolog": config.patient(shipped / "taskprolog.sh", files.hooks),
        }
        for name, hook in hooks.items():
            self._script(files.hooks / name, config.hook_wrapper(files, hook))
        self._script(files.nvml, config.nvml_command(files))
        self.nodes = {
            name: Node(name, node, files, port)
            for name, node, port in zip(self._names(), spec.nodes, metrics_ports, strict=True)
        }
        for node in self.nodes.values():
            node.write_policy(spec.policy)
        targets = {name: node.agent.metrics_port for name, node in self.nodes.items()}
        self.prometheus: Prometheus | None = None
        if spec.prometheus:
            self.prometheus = Prometheus(files, prometheus_port, targets, spec.rules, scrape_s=spec.scrape_s)
        slurm_env = self.env
        self.munged = Daemon("munged", self._munge_argv(), environment(files.root), files.log / "munged.log")
        self.slurmctld = Daemon("slurmctld", ["slurmctld", "-D"], slurm_env, files.log / "slurmctld.log")

    @staticmethod
    def _script(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def _names(self) -> list[str]:
        return [f"node{n}" for n in range(1, len(self.spec.nodes) + 1)]

    def _munge_argv(self) -> list[str]:
        munge = self.files.munge
        key = munge / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        paths = {
            "socket": "munge.sock",
            "key-file": "munge.key",
            "pid-file": "munged.pid",
            "log-file": "munged.log",
            "seed-file": "munged.seed",
        }
        return ["munged", "--foreground", "--force", *(f"--{option}={munge / name}" for option, name in paths.items())]

    def up(self) -> Self:
        """Starts everything and returns when every node is idle and every agent ready; closes the lab on failure."""
        start = time.monotonic()
        try:
            self.munged.start()
            if self.prometheus:
                self.prometheus.start()
            if self.spec.agents:
                for node in self.nodes.values():
                    node.agent.start(wait=False)
            self._await((self.files.munge / "munge.sock").exists, self.munged, "munged listens")
            if self.database:
                self.database.start()
            self.start_slurmctld()  # before the nodes: a slurmd that finds nobody tries again only a second later
            for node in self.nodes.values():
                node.slurmd.start()
            self.wait_idle()
            if self.spec.agents:
                for node in self.nodes.values():
                    node.agent.wait_ready()
            if self.prometheus:
                self.prometheus.wait_ready()
        except BaseException:
            self.close()
            raise
        self.came_up_s = time.monotonic() - start
        return self

    def _await(self, predicate: Callable[[], bool], daemon: Daemon, what: str) -> None:
        def checked() -> bool:
            daemon.check()
            return predicate()

        wait_until(checked, 5, what, note=False, every_s=0.01)

    def wait_idle(self) -> None:
        """Waits until slurmctld has every node idle, with its registered GRES."""
        for daemon in (self.slurmctld, *(node.slurmd for node in self.nodes.values())):
            daemon.check()

        def idle() -> bool:
            self.slurmctld.check()
            return self.node_states() == dict.fromkeys(self.nodes, "idle")

        wait_until(idle, 10, "every node is idle", note=False)

    def node(self, number: int) -> Node:
        """Node 1 is `node1`."""
        return self.nodes[f"node{number}"]

    @property
    def nvml(self) -> str:
        """Put this in a job's script: it prints the GPUs of the node it runs on as JSON, see nvml_client.py."""
        return str(self.files.nvml)

    def stop_slurmctld(self) -> None:
        self.slurmctld.stop(PATIENCE * 5)  # it saves its state at the end

    def start_slurmctld(self) -> None:
        """Starts slurmctld from its saved state and waits until it answers."""
        self.slurmctld.start()
        self._await(self.slurmctld_answers, self.slurmctld, "slurmctld answers")

    def restart_slurmd(self, number: int) -> None:
        node = self.node(number)
        node.slurmd.stop()
        node.slurmd.start()
        self.wait_idle()

    def members(self) -> set[int]:
        """Every living process of the lab."""
        return members(self.files.root)

    def logs(self) -> str:
        """The end of every log, for the message of a failure."""
        paths = [*sorted(self.files.log.glob("*.log")), *sorted(self.files.root.glob("*/agent.log"))]
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in paths)

    def close(self) -> None:
        """Ends the lab. Idempotent."""
        if self.files.root.exists():
            keep = os.environ.get("WATTKEEPER_LAB_LOGS")
            for node in getattr(self, "nodes", {}).values():
                node.close()
            if keep:
                ignore = shutil.ignore_patterns("dev", "*.sock", "notify", "munge", "slurmd")
                shutil.copytree(self.files.root, Path(keep) / self.files.root.name, ignore=ignore, dirs_exist_ok=True)
            self.keeper.finish()
            for daemon in self._daemons():
                daemon.kill()

    def _daemons(self) -> list[Daemon]:
        own = [getattr(self, name, None) for name in ("munged", "slurmctld")]
        prometheus, accounts = getattr(self, "prometheus", None), getattr(self, "database", None)
        return [
            *(daemon for daemon in own if daemon),
            *(accounts.daemons() if accounts else []),
            *(node.slurmd for node in getattr(self, "nodes", {}).values()),
            *([prometheus.daemon] if prometheus else []),
        ]

    def __enter__(self) -> Self:
        return self.up()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
