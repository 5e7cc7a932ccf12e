"""Giving up root for what needs none."""

import os
import shlex
from contextlib import suppress
from pathlib import Path

from wattkeeper.errors import WattkeeperError
from wattkeeper.system.trust import user_name


def become_owner_of(path: Path) -> None:
    """From root, become for good the user that a file or link belongs to; does nothing for others, or without one.

    For whoever reads what another user wrote: what is wrong with it then has no more rights than its writer. Raises
    WattkeeperError where that user may not enter a folder on the way, as of a copy in root's own.
    """
    if os.geteuid() != 0:
        return
    with suppress(FileNotFoundError):
        status = path.lstat()
        if status.st_uid != 0:
            os.setgroups([])
            os.setresgid(status.st_gid, status.st_gid, status.st_gid)
            os.setresuid(status.st_uid, status.st_uid, status.st_uid)
            _require_way(path, status.st_uid)


def _require_way(path: Path, uid: int) -> None:
    for folder in reversed(path.absolute().parents):
        if not os.access(folder, os.X_OK):
            text = f"belongs to {user_name(uid)}, by whose rights it is read, and who may not enter {folder}"
            mend = f"give a copy to root (chown root {shlex.quote(str(path))}), or move it elsewhere"
            raise WattkeeperError(f"{path}: {text}; {mend}")
