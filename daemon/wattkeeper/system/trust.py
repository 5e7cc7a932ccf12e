"""Paths that only people we trust can have put where they are, checked on the open descriptor before they are used.

A path is walked step by step: each folder and each link on the way must belong to somebody trusted, and nobody else may
be able to put another thing in its place. What is opened is what was checked, whatever is renamed meanwhile.
"""

import errno
import grp
import os
import pwd
import shlex
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from wattkeeper.errors import WattkeeperError

MOST_LINKS = 40
"""As many links in one path as the kernel follows (path_resolution(7))."""

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_WAYS = ((0o2, "write to"), (0o4, "read"), (0o1, "enter"))


class Kind(StrEnum):
    """What a path must be."""

    FILE = "regular file"
    FOLDER = "folder"
    SOCKET = "socket"


_IS = {Kind.FILE: stat.S_ISREG, Kind.FOLDER: stat.S_ISDIR, Kind.SOCKET: stat.S_ISSOCK}


@dataclass(frozen=True, slots=True)
class Trust:
    """What is asked of a path. ``owners``: uids it may belong to beside root's and our own; None: anybody's.

    ``forbidden``: bits of the mode that it must not have. ``way``: look at the folders on the way as well.
    """

    kind: Kind = Kind.FILE
    owners: frozenset[int] | None = frozenset()
    forbidden: int = 0o022
    way: bool = True


OURS = Trust()
"""A file that root or we wrote, and nobody else can change."""

OUR_FOLDER = Trust(Kind.FOLDER)
"""The same of a folder."""

SECRET = Trust(forbidden=0o077)
"""A file that nobody but its owner can even read: the key of a certificate, say."""

ANYBODYS = Trust(owners=None)
"""Somebody else's, in whose folder we put something: it only must not be everybody's."""

DRAFT = Trust(owners=None, way=False)
"""A file that is looked at and not used: anybody's, anywhere; its mode is what it will be installed with."""


TO_READ = Trust(owners=None, forbidden=0, way=False)
"""A file that is only read, and whoever reads it may have written it too."""


class UntrustedError(WattkeeperError):
    """Something that must not be used: ``path: what is wrong with it: the mend``, on one line."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(f"{path}: {text}")
        self.path = path
        self.text = text


def open_trusted(path: Path, trust: Trust = OURS, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """A descriptor of what is at ``path``, which is as ``trust`` asks; whoever calls closes it.

    With O_CREAT in ``flags`` a file that is not there is made with ``mode``. A link in the last place is never
    followed; a socket is opened for looking at only. Raises UntrustedError, and OSError where it cannot be opened.
    """
    whole = path.absolute()
    folder = open_folder_of(whole, trust)
    ways = os.O_PATH if trust.kind is Kind.SOCKET else flags | os.O_NONBLOCK | os.O_NOCTTY
    try:
        file = os.open(whole.name or ".", ways | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UntrustedError(path, _link(os.readlink(whole.name, dir_fd=folder))) from None
        if error.errno in {errno.EISDIR, errno.ENXIO}:
            raise UntrustedError(path, _other(trust)) from None
        raise
    finally:
        os.close(folder)
    try:
        _require(path, os.fstat(file), trust)
    except UntrustedError:
        os.close(file)
        raise
    return file


def check(path: Path, trust: Trust = OURS) -> None:
    """Look whether ``path`` is as ``trust`` asks. Raises UntrustedError, and OSError where it cannot be opened.

    For what somebody else opens; where we do it ourselves, ``open_trusted`` leaves nobody the time in between.
    """
    os.close(open_trusted(path, trust))


def read_trusted(path: Path, most_bytes: int, trust: Trust = OURS) -> bytes:
    """What a file holds, at most ``most_bytes`` and one. Raises UntrustedError or OSError."""
    with os.fdopen(open_trusted(path, trust), "rb") as file:
        return file.read(most_bytes + 1)


def fault_of(status: os.stat_result, trust: Trust, name: str) -> str | None:
    """What is wrong with something of that status, and the mend; None where nothing is. ``name``: it, in the mend."""
    if stat.S_ISLNK(status.st_mode):
        return _link(None)
    if not _IS[trust.kind](status.st_mode):
        return _other(trust)
    if trust.owners is not None and status.st_uid not in _owners(trust):
        return _foreign(status, trust, name)
    mode = stat.S_IMODE(status.st_mode)
    return _too_open(mode, mode & trust.forbidden, status.st_gid, name)


def _require(path: Path, status: os.stat_result, trust: Trust) -> None:
    fault = fault_of(status, trust, shlex.quote(str(path)))
    if fault:
        raise UntrustedError(path, fault)


def open_folder_of(path: Path, trust: Trust = OURS) -> int:
    """The folder that an absolute path is in, to reach things in it by (O_PATH); whoever calls closes it.

    Raises UntrustedError for a folder or a link on the way to it, and OSError where there is none.
    """
    if not trust.way:
        return os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    path.parent.stat()  # mounts what is mounted when it is asked for: opening step by step does not
    steps, links = [*reversed(path.parts[1:-1])], 0
    here, place = os.open("/", _STEP), Path("/")
    try:
        _require_way(path, place, os.fstat(here), trust)
        while steps:
            step = steps.pop()
            there = os.open(step, _STEP, dir_fd=here)
            status = os.fstat(there)
            if not stat.S_ISLNK(status.st_mode):
                os.close(here)
                here, place = there, place / step
                _require_way(path, place, status, trust)
                continue
            target, links = Path(os.readlink("", dir_fd=there)), links + 1
            os.close(there)
            _require_way(path, place / step, status, trust, links)
            steps += reversed(target.parts[1:] if target.is_absolute() else target.parts)
            if target.is_absolute():
                os.close(here)
                here, place = os.open("/", _STEP), Path("/")
    except BaseException:
        os.close(here)
        raise
    return here


def _require_way(path: Path, place: Path, status: os.stat_result, trust: Trust, links: int = 0) -> None:
    """A folder or link on the way to ``path``. In a sticky folder nobody can put away what is not theirs."""
    if links > MOST_LINKS:
        raise UntrustedError(path, f"has more than {MOST_LINKS} links on its way: name the folder that they lead to")
    name, mode = shlex.quote(str(place)), stat.S_IMODE(status.st_mode)
    fault = None
    if trust.owners is not None and status.st_uid not in _owners(trust):
        fault = _foreign(status, trust, name, link=stat.S_ISLNK(status.st_mode))
    elif stat.S_ISDIR(status.st_mode) and not mode & stat.S_ISVTX:
        ours = trust.owners is None or status.st_gid in {0, os.getegid()}
        fault = _too_open(mode, mode & (0o002 if ours else 0o022), status.st_gid, name)
    if fault:
        raise UntrustedError(path, f"{place}, which it is in, {fault}")


def _owners(trust: Trust) -> frozenset[int]:
    """Whoever owns ``/`` could replace all below it: in a user namespace without root that is an id of nobody's."""
    return frozenset({0, os.geteuid(), Path("/").stat().st_uid, *(trust.owners or ())})


def _foreign(status: os.stat_result, trust: Trust, name: str, *, link: bool = False) -> str:
    allowed = " or ".join(user_name(uid) for uid in sorted({0, os.geteuid(), *(trust.owners or ())}))
    return f"belongs to {user_name(status.st_uid)}, not to {allowed}: chown {'-h ' if link else ''}root {name}"


def _too_open(mode: int, bits: int, gid: int, name: str) -> str | None:
    """``lets its group staff write to it (mode 0664): chmod g-w NAME``; None where no bit is too much."""
    if not bits:
        return None
    who = [f"its group {_group(gid)}"] if bits & 0o070 else []
    who += ["everybody"] if bits & 0o007 else []
    both = bits >> 3 & 0o7 | bits & 0o7
    what = next(word for bit, word in _WAYS if both & bit)
    letters = ("g" if bits & 0o070 else "") + ("o" if bits & 0o007 else "")
    taken = "".join(letter for bit, letter in ((4, "r"), (2, "w"), (1, "x")) if both & bit)
    return f"lets {' and '.join(who)} {what} it (mode {mode:04o}): chmod {letters}-{taken} {name}"


def _other(trust: Trust) -> str:
    return f"is not a {trust.kind}: name one, or put one there"


def _link(target: str | None) -> str:
    return "is a symbolic link: name what it leads to instead" + (f" ({target})" if target else "")


def user_name(uid: int) -> str:
    """A user for people: ``alice (uid 1000)``, ``root``, or ``uid 4711`` where it has no name."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
    return f"{name} (uid {uid})" if uid else name


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
