"""Files that are replaced whole, folders that are made or left as they were made, and the lock on ``run_dir``."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wattkeeper.errors import AgentRunningError, StoreError
from wattkeeper.ledger.store import SqliteStore
from wattkeeper.system.files import RunLock, make_private_folder, write_whole
from wattkeeper.system.trust import ANYBODYS, UntrustedError

STRANGER = 12_345

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """This process, with a plain user's rights to files."""
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that every user reaches: pytest keeps its own to itself."""
    for folder in (tmp_path, *tmp_path.parents):
        if os.geteuid() == folder.stat().st_uid and folder != Path("/") and folder != Path("/tmp"):
            folder.chmod(mode_of(folder) | 0o055)
    return tmp_path


class TestReplacing:
    def test_leaves_the_new_content_and_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        for content in (b"old", b"new"):
            write_whole(path, content, 0o640)
        assert (path.read_bytes(), mode_of(path), list(tmp_path.iterdir())) == (b"new", 0o640, [path])

    def test_follows_no_link_under_either_name(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_bytes(b"dear")
        (tmp_path / "f").symlink_to(victim)
        (tmp_path / f".f.{os.getpid()}.tmp").symlink_to(victim)
        write_whole(tmp_path / "f", b"new")
        assert (victim.read_bytes(), (tmp_path / "f").read_bytes()) == (b"dear", b"new")
        assert not (tmp_path / "f").is_symlink()

    def test_what_cannot_be_replaced_leaves_no_scratch(self, tmp_path: Path) -> None:
        (tmp_path / "f").mkdir()
        with pytest.raises(OSError, match="directory"):
            write_whole(tmp_path / "f", b"new")
        assert list(tmp_path.iterdir()) == [tmp_path / "f"]

    def test_a_folder_that_everybody_can_write_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        with pytest.raises(UntrustedError, match="everybody"):
            write_whole(tmp_path / "open" / "f", b"new", trust=ANYBODYS)
        assert list((tmp_path / "open").iterdir()) == []

    @as_root
    def test_a_strangers_folder_is_refused_unless_it_is_meant(self, tmp_path: Path) -> None:
        os.chown(tmp_path, STRANGER, -1)
        with pytest.raises(UntrustedError, match=f"belongs to uid {STRANGER}"):
            write_whole(tmp_path / "f", b"new")
        write_whole(tmp_path / "f", b"new", durable=False, trust=ANYBODYS)
        assert (tmp_path / "f").read_bytes() == b"new"


class TestFolders:
    def test_are_made_with_their_mode_or_get_it(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b"
        make_private_folder(path)
        assert mode_of(path) == 0o700
        path.chmod(0o755)
        make_private_folder(path)
        assert mode_of(path) == 0o700

    def test_a_link_or_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir(mode=0o755)
        (tmp_path / "link").symlink_to("real")
        with pytest.raises(UntrustedError, match="symbolic link"):
            make_private_folder(tmp_path / "link")
        assert mode_of(tmp_path / "real") == 0o755

    @as_root
    def test_what_root_made_for_our_group_stays_as_it_is(self, place: Path) -> None:
        spool = place / "spool"
        spool.mkdir()
        os.chown(spool, 0, STRANGER)
        spool.chmod(0o2770)
        with as_user(STRANGER, STRANGER):
            make_private_folder(spool)
        make_private_folder(spool)
        assert mode_of(spool) == 0o2770

    @as_root
    def test_what_is_everybodys_or_a_strangers_is_refused(self, place: Path) -> None:
        spool = place / "spool"
        spool.mkdir()
        spool.chmod(0o777)
        with as_user(STRANGER, STRANGER), pytest.raises(UntrustedError, match="lets everybody write to it"):
            make_private_folder(spool)
        spool.chmod(0o700)
        os.chown(spool, STRANGER + 1, -1)
        with pytest.raises(UntrustedError, match=f"belongs to uid {STRANGER + 1}"):
            make_private_folder(spool)
        make_private_folder(spool, owners=frozenset({STRANGER + 1}))


class TestLock:
    def test_one_holds_it(self, tmp_path: Path) -> None:
        first, second = RunLock(tmp_path), RunLock(tmp_path)
        first.acquire()
        with pytest.raises(AgentRunningError, match=rf"pid {os.getpid()}\)"):
            second.acquire()
        first.release()
        second.acquire()
        second.release()

    def test_what_its_holder_wrote_there_is_not_printed_raw(self, tmp_path: Path) -> None:
        first = RunLock(tmp_path)
        first.acquire()
        (tmp_path / "lock").write_text("\x1b[31m\n" * 3)
        with pytest.raises(AgentRunningError) as caught:
            RunLock(tmp_path).acquire()
        first.release()
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize("trap", ["link", "dangling link", "second name", "pipe", "folder"])
    def test_nothing_else_is_written_in_its_place(self, tmp_path: Path, trap: str) -> None:
        victim = tmp_path / "victim"
        victim.write_text("dear")
        lock = tmp_path / "lock"
        make: dict[str, Callable[[], None]] = {
            "link": lambda: lock.symlink_to(victim),
            "dangling link": lambda: lock.symlink_to(tmp_path / "made"),
            "second name": lambda: lock.hardlink_to(victim),
            "pipe": lambda: os.mkfifo(lock),
            "folder": lock.mkdir,
        }
        make[trap]()
        with pytest.raises(UntrustedError, match=f": rm .*{lock}"):
            RunLock(tmp_path).acquire()
        assert victim.read_text() == "dear"
        assert not (tmp_path / "made").exists()

    @as_root
    def test_root_and_the_agents_user_take_it_in_turn(self, place: Path) -> None:
        """In a folder for root and a group, sticky so that neither puts away what is the other's."""
        os.chown(place, 0, STRANGER)
        place.chmod(0o1775)
        for first in (0, STRANGER):
            for uid in (first, STRANGER - first):
                with as_user(uid, uid):
                    lock = RunLock(place)
                    lock.acquire()
                    lock.release()
            (place / "lock").unlink()


class TestLedgerFile:
    def test_a_link_in_its_place_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "state.db").symlink_to("elsewhere")
        with pytest.raises(StoreError, match=r"state\.db: is a symbolic link"):
            SqliteStore(tmp_path / "state.db")
        assert not (tmp_path / "elsewhere").exists()

    def test_one_that_others_could_write_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "state.db").touch()
        (tmp_path / "state.db").chmod(0o666)
        with pytest.raises(StoreError, match=r"chmod go-w .*state\.db"):
            SqliteStore(tmp_path / "state.db")

    @as_root
    def test_a_strangers_is_refused_and_the_agents_users_opens_for_root(self, tmp_path: Path) -> None:
        (tmp_path / "state.db").touch(mode=0o600)
        os.chown(tmp_path / "state.db", STRANGER, -1)
        with pytest.raises(StoreError, match=f"belongs to uid {STRANGER}"):
            SqliteStore(tmp_path / "state.db")
        os.chown(tmp_path, STRANGER, -1)
        SqliteStore(tmp_path / "state.db").close()
