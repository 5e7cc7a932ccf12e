"""Giving up root for what needs none."""

import os
from contextlib import suppress
from pathlib import Path


def become_owner_of(path: Path) -> None:
    """From root, become for good the user that a file or link belongs to; does nothing for others, or without one.

    For whoever reads what another user wrote: what is wrong with it then has no more rights than its writer.
    """
    if os.geteuid() != 0:
        return
    with suppress(FileNotFoundError):
        status = path.lstat()
        if status.st_uid != 0:
            os.setgroups([])
            os.setresgid(status.st_gid, status.st_gid, status.st_gid)
            os.setresuid(status.st_uid, status.st_uid, status.st_uid)
