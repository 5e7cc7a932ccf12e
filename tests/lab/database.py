"""MariaDB and slurmdbd of one lab: own folder, socket and port, nothing over the network but slurmdbd on loopback."""

import os
import pwd
import shutil
from pathlib import Path

from tests.lab.config import user
from tests.lab.processes import Daemon, environment, run
from tests.lab.spec import Files
from tests.lab.waiting import wait_until

PROGRAMS = ("mariadbd", "mariadb", "mariadb-admin", "mariadb-install-db", "slurmdbd", "sacctmgr")
ACCOUNT = "ml"
"""The account that everybody's jobs run under."""
QOS = ("normal", "high", "low")
"""What a job may ask for with ``--qos``; the first where it asks for none."""
_SETUP = """\
create database slurm_acct_db; create user 'slurm'@'localhost' identified by 'slurm';
grant all on slurm_acct_db.* to 'slurm'@'localhost'
"""


class Database:
    """Starts in 4 s, as root (MariaDB then as its own user) or as anybody."""

    def __init__(self, files: Files, port: int) -> None:
        self._files = files
        self._root = files.root / "db"
        self._root.mkdir()
        self._socket = self._root / "sql.sock"
        self._env = environment(files.root, SLURM_CONF=str(files.slurm_conf), MYSQL_UNIX_PORT=str(self._socket))
        self._as = ["--user=mysql"] if os.geteuid() == 0 else []
        if self._as:
            shutil.chown(self._root, "mysql")
        (files.etc / "slurmdbd.conf").write_text(slurmdbd_conf(files, port))
        (files.etc / "slurmdbd.conf").chmod(0o600)
        self._settings = self._root / "my.cnf"
        self._settings.write_text(my_cnf(self._root, self._socket))
        argv = ["mariadbd", f"--defaults-file={self._settings}", *self._as]
        self.mariadbd = Daemon("mariadbd", argv, self._env, files.log / "mariadbd.log")
        self.slurmdbd = Daemon("slurmdbd", ["slurmdbd", "-D"], self._env, files.log / "slurmdbd.log")

    def start(self) -> None:
        """Makes the database and returns when slurmdbd answers and knows the cluster, its account, QOS and users."""
        run(
            ["mariadb-install-db", f"--defaults-file={self._settings}", *self._as, f"--tmpdir={self._root}",
             "--auth-root-authentication-method=normal", "--skip-test-db"], self._env, timeout_s=120,
        )  # fmt: skip
        self.mariadbd.start()
        client = ["--no-defaults", "-uroot", f"--socket={self._socket}"]
        self._await(self.mariadbd, ["mariadb-admin", *client, "ping"])
        run(["mariadb", *client, "-e", _SETUP], self._env)
        self.slurmdbd.start()
        self._await(self.slurmdbd, ["sacctmgr", "-n", "show", "cluster"])
        self._fill()

    def _fill(self) -> None:
        self.sacctmgr("add", "cluster", "lab")
        self.sacctmgr("add", "account", ACCOUNT, "Description=lab", "Organization=lab")
        self.sacctmgr("add", "qos", *QOS[1:])
        names = {user(), *(["nobody"] if _there("nobody") else [])}
        for name in sorted(names):
            allowed = (f"qos={','.join(QOS)}", f"defaultqos={QOS[0]}")
            self.sacctmgr("add", "user", name, f"account={ACCOUNT}", f"defaultaccount={ACCOUNT}", *allowed)

    def sacctmgr(self, *words: str) -> str:
        """Changes accounts, QOS and users, or shows them."""
        return run(["sacctmgr", "-i", *words], self._env).stdout

    def daemons(self) -> list[Daemon]:
        return [self.slurmdbd, self.mariadbd]

    def _await(self, daemon: Daemon, argv: list[str]) -> None:
        def answers() -> bool:
            daemon.check()
            return run(argv, self._env, check=False).returncode == 0

        wait_until(answers, 10, f"{daemon.name} answers", note=False, every_s=0.05)


def _there(name: str) -> bool:
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


def slurmdbd_conf(files: Files, port: int) -> str:
    """slurmdbd finds MariaDB's socket by MYSQL_UNIX_PORT: the host is named only because it must be."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={files.munge}/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user()}
PidFile={files.root}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageLoc=slurm_acct_db
StorageUser=slurm
StoragePass=slurm
"""


def slurm_conf_lines(files: Files, port: int) -> dict[str, str]:
    """What slurm.conf says of accounting, in place of `accounting_storage/none`."""
    return {
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": "127.0.0.1",
        "AccountingStoragePort": str(port),
        "AccountingStoragePass": f"{files.munge}/munge.sock",
        "AccountingStorageEnforce": "associations,limits,qos",
    }


def my_cnf(root: Path, socket: Path) -> str:
    """Small and fast: nothing of it outlives the lab."""
    return f"""\
[mysqld]
datadir={root}/data
tmpdir={root}
socket={socket}
pid-file={root}/mariadbd.pid
skip-networking
skip-log-bin
innodb_buffer_pool_size=64M
innodb_log_file_size=4M
innodb_flush_log_at_trx_commit=0
innodb_lock_wait_timeout=900
"""
