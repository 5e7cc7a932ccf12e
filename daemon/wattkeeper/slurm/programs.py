"""Where Slurm's own programs are on this node, and how they are run."""

import re
from pathlib import Path

from wattkeeper.system.process import Finished, run

_CONFS = tuple(map(Path, ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/run/slurm/conf/slurm.conf")))
_FOLDERS = ("/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/opt/slurm/sbin", "/opt/slurm/bin")
_VERSION = re.compile(r"slurm\S* ([0-9]+)\.([0-9]+)")


class Programs:
    """Slurm's programs. ``conf``: slurm.conf, ``bin_dir``: their folder, where either is not in its usual place."""

    def __init__(self, conf: Path | None, bin_dir: Path | None) -> None:
        self._conf = conf
        self._bin_dir = bin_dir
        self.environment = {"PATH": ":".join(_FOLDERS), **({"SLURM_CONF": str(conf)} if conf else {})}

    def find(self, program: str) -> str | None:
        """The path of a program; None where this node lacks it."""
        folders = (self._bin_dir, self._bin_dir.parent / "sbin") if self._bin_dir else tuple(map(Path, _FOLDERS))
        return next((str(f / program) for f in folders if (f / program).exists()), None)

    def configured(self) -> bool:
        """True where there is a slurm.conf to go by."""
        return self._conf is not None or any(path.exists() for path in _CONFS)

    async def run(self, program: str, *words: str, deadline_s: float) -> Finished:
        """What a program left, as ``system.process.run``; one that is not there could not be started."""
        path = self.find(program)
        if path is None:
            return Finished(None, "", f"{program} is not on this node; set slurm.bin_dir")
        return await run([path, *words], deadline_s, self.environment)

    async def release(self, deadline_s: float) -> tuple[int, int] | None:
        """This node's Slurm, such as (22, 5) for 22.05.8; None where it does not say."""
        found = _VERSION.search((await self.run("scontrol", "--version", deadline_s=deadline_s)).output)
        return (int(found[1]), int(found[2])) if found else None
