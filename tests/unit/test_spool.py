"""What lies in the spool: an event of Slurm's, or something that is put away."""

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.one_node import HandClock

from wattkeeper.agent import spool as module
from wattkeeper.agent.spool import Spool
from wattkeeper.slurm.hook_event import EventKind

SLURM, STRANGER = 12_344, 12_345
NAME = "000000900.50-77.prolog"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@dataclass
class Place:
    """A spool in which Slurm's user is uid ``SLURM``, or we are; and what was refused there."""

    folder: Path
    clock: HandClock = field(default_factory=HandClock)
    refused: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.spool = Spool(
            self.folder, self.clock, lambda: frozenset({SLURM}), lambda kind: self.refused.update([kind])
        )

    def put(self, name: str = NAME, content: bytes = b"A=1\0", owner: int | None = None, mode: int = 0o640) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(mode)
        if owner is not None:
            os.chown(path, owner, -1)
        return path

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="wk-spool-", dir="/tmp") as folder:
        yield Place(Path(folder))


def test_events_come_by_their_time_with_what_they_hold(place: Place) -> None:
    place.put("000000910.25-9.epilog", b"B=2\0")
    place.put()
    place.put(".000000001.00-1.prolog.tmp")
    place.put("notes.txt")
    first, second = place.spool.events()
    assert (first.kind, first.raw, first.when.mono) == (EventKind.PROLOG, b"A=1\0", 900.5)
    assert (second.kind, second.raw, second.when.mono) == (EventKind.EPILOG, b"B=2\0", 910.25)
    assert second.when.at == place.clock.wall() - 89.75
    assert len(place.names()) == 4, "whoever handled an event removes it"


def test_no_event_is_of_the_future(place: Place) -> None:
    place.put("999999999999.00-1.prolog")
    (event,) = place.spool.events()
    assert (event.when.mono, event.when.at) == (place.clock.mono(), place.clock.wall())


@as_root
def test_events_of_the_users_that_the_settings_name_are_taken(place: Place) -> None:
    place.put(owner=SLURM)
    assert len(place.spool.events()) == 1
    os.chown(place.folder, SLURM, -1)
    place.folder.chmod(0o2770)
    assert len(place.spool.events()) == 1
    assert not place.refused


@as_root
def test_a_strangers_file_is_removed_unread_and_counted(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.put(owner=STRANGER)
    assert place.spool.events() == []
    assert (place.names(), place.refused) == ([], {"prolog": 1})
    (line,) = caplog.messages
    assert (
        line
        == f"{place.folder}/{NAME}: no event of Slurm's: belongs to uid {STRANGER}, not to root or uid {SLURM}; removed"
    )


def test_what_others_can_write_is_removed(place: Place) -> None:
    place.put(mode=0o662)
    assert (place.spool.events(), place.names(), place.refused) == ([], [], {"prolog": 1})


@pytest.mark.parametrize("trap", ["link", "dangling link", "pipe", "folder", "full folder"])
def test_what_is_no_file_is_put_away_and_never_followed(place: Place, trap: str) -> None:
    victim = place.put("victim", b"SLURM_JOB_ID=1\0")
    path = place.folder / NAME
    if trap == "link":
        path.symlink_to(victim)
    elif trap == "dangling link":
        path.symlink_to("nowhere")
    elif trap == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
        if trap == "full folder":
            (path / "f").touch()
    for _ in range(3):
        assert place.spool.events() == []
    assert victim.read_bytes() == b"SLURM_JOB_ID=1\0"
    assert place.names() == ([NAME] if trap == "full folder" else []) + ["victim"]
    assert place.refused == {"prolog": 1}, "what cannot be put away counts once"


@as_root
def test_a_flood_of_strangers_files_is_a_line_a_minute(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    for second in range(130):
        for number in range(5):
            place.put(f"000000900.00-{number}.epilog", owner=STRANGER)
        place.spool.events()
        place.clock.at_mono += 1
        assert len(caplog.messages) <= 1 + (second + 1) // 60
    assert place.refused == {"epilog": 650}
    assert "(299 more times since it was said last)" in caplog.messages[1]


def test_a_spool_that_everybody_can_write_is_not_believed(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.put()
    place.folder.chmod(0o777)
    assert place.spool.events() == place.spool.events() == []
    assert place.names() == [NAME], "the event waits for the mend"
    (line,) = caplog.messages
    assert line.endswith(f"chmod o-w {place.folder}")
    place.folder.chmod(0o2770)
    assert len(place.spool.events()) == 1


def test_a_link_in_the_spools_place_is_not_believed(place: Place) -> None:
    place.put()
    link = Path(f"{place.folder}-link")
    link.symlink_to(place.folder)
    try:
        assert Place(link).spool.events() == []
    finally:
        link.unlink()


def test_without_a_folder_nothing_waits(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert Place(place.folder / "absent").spool.events() == []
    assert caplog.messages == []


def test_no_more_than_memory_bears_is_taken_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 2_000)
    for number in range(6):
        place.put(f"000000900.0{number}-1.prolog", b"A" * 1_000)
    taken = []
    while events := place.spool.events():
        taken += [event.path.name for event in events]
        for event in events:
            event.path.unlink()
    assert taken == [f"000000900.0{number}-1.prolog" for number in range(6)]
