"""Time zones by name, from the machine's own tables, and the zone in which the machine itself lives."""

import os
import re
import struct
from datetime import UTC, tzinfo
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

LOCALTIME = Path("/etc/localtime")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(?:/[A-Za-z0-9_+-]{1,32}){0,3}")
_RULE = re.compile(r"(?=.*[0-9])[A-Za-z0-9<>+,./:-]{4,64}")


def zone_named(name: str) -> tzinfo | None:
    """The zone of that name (``Europe/Zurich``); None where this machine's tables know none."""
    if not _NAME.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        return None


def machine_zone(localtime: Path = LOCALTIME) -> tzinfo:
    """The zone of this machine as tzset(3) finds it: by TZ, else ``/etc/localtime``, else UTC."""
    text = os.environ.get("TZ")
    if text is not None:
        return _by_tz(text.removeprefix(":"))
    target = str(localtime.resolve())
    named = zone_named(target.rpartition("/zoneinfo/")[2]) if "/zoneinfo/" in target else None
    return named or _read(localtime)


def zone_name(zone: tzinfo) -> str:
    """The zone's name for people."""
    return getattr(zone, "key", None) or str(zone)


def _by_tz(text: str) -> tzinfo:
    """What TZ says: a name, a file, or a rule such as ``CET-1CEST,M3.5.0,M10.5.0/3``; UTC where it says nothing."""
    if text.startswith("/"):
        return _read(Path(text))
    return zone_named(text) or (_by_rule(text) if _RULE.fullmatch(text) else None) or UTC


def _by_rule(rule: str) -> tzinfo | None:
    """A POSIX rule, through a table without entries that ends in it (RFC 9636); None where it is none."""
    block = struct.pack(">4sc15x6L", b"TZif", b"2", 0, 0, 0, 0, 1, 4)
    table = block + struct.pack(">lbb4s", 0, 0, 0, b"UTC\0")
    try:
        return ZoneInfo.from_file(BytesIO(table * 2 + f"\n{rule}\n".encode()), key=rule)
    except ValueError:
        return None


def _read(path: Path) -> tzinfo:
    try:
        with path.open("rb") as table:
            return ZoneInfo.from_file(table, key=str(path))
    except (OSError, ValueError):
        return UTC
