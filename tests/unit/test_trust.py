"""What can be changed by others is not used: files, the folders they are in, and the links on the way."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from wattkeeper.system.trust import DRAFT, OUR_FOLDER, SECRET, Kind, Trust, UntrustedError, check, read_trusted

STRANGER = 12_345

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of ours in ``/tmp``, which everybody may write to, and which is sticky."""
    with tempfile.TemporaryDirectory(prefix="wk-trust-", dir="/tmp") as name:
        yield Path(name).resolve()


def put(path: Path, mode: int = 0o644) -> Path:
    path.write_text("text")
    path.chmod(mode)
    return path


def refused(path: Path, trust: Trust | None = None) -> str:
    with pytest.raises(UntrustedError) as caught:
        check(path, trust or Trust())
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o444, 0o755])
def test_takes_what_only_its_owner_can_write(folder: Path, mode: int) -> None:
    assert read_trusted(put(folder / "f", mode), 10) == b"text"


def test_reads_no_more_than_one_byte_too_many(folder: Path) -> None:
    assert read_trusted(put(folder / "f"), 2) == b"tex"


@pytest.mark.parametrize(
    ("mode", "who", "mend"),
    [(0o664, "its group", "g-w"), (0o646, "everybody", "o-w"), (0o666, "its group", "go-w")],
)
def test_refuses_what_others_can_write(folder: Path, mode: int, who: str, mend: str) -> None:
    path = put(folder / "f", mode)
    said = refused(path)
    assert said.startswith(f"lets {who} ")
    assert said.endswith(f"write to it (mode {mode:04o}): chmod {mend} {path}")
    assert refused(path, DRAFT) == said


def test_refuses_a_secret_that_others_can_read(folder: Path) -> None:
    check(put(folder / "key", 0o600), SECRET)
    path = put(folder / "f", 0o644)
    assert refused(path, SECRET).endswith(f"and everybody read it (mode 0644): chmod go-r {path}")


def test_refuses_a_link_whatever_it_leads_to(folder: Path) -> None:
    put(folder / "f")
    (folder / "link").symlink_to("f")
    assert refused(folder / "link") == "is a symbolic link: name what it leads to instead (f)"
    (folder / "link").unlink()
    (folder / "link").symlink_to("nowhere")
    assert refused(folder / "link").startswith("is a symbolic link")
    assert not (folder / "nowhere").exists()


def test_refuses_what_is_something_else(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    said = "is not a regular file: name one, or put one there"
    assert refused(folder / "pipe") == refused(folder) == refused(Path("/dev/null")) == said
    assert refused(put(folder / "f"), OUR_FOLDER).startswith("is not a folder: ")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(folder / "sock"))
        (folder / "sock").chmod(0o600)
        check(folder / "sock", Trust(Kind.SOCKET))
        assert refused(folder / "sock") == said
    assert refused(folder / "f", Trust(Kind.SOCKET)).startswith("is not a socket: ")


def test_what_is_not_there_is_no_matter_of_trust(folder: Path) -> None:
    for path in (folder / "absent", folder / "absent" / "f", put(folder / "f") / "below"):
        with pytest.raises(OSError, match=r"No such file|Not a directory"):
            check(path)


def test_refuses_what_lies_in_a_folder_that_everybody_can_write(folder: Path) -> None:
    (folder / "open" / "inner").mkdir(parents=True)
    path = put(folder / "open" / "inner" / "f")
    (folder / "open").chmod(0o777)
    place = folder / "open"
    assert refused(path) == f"{place}, which it is in, lets everybody write to it (mode 0777): chmod o-w {place}"
    check(path, DRAFT)
    place.chmod(0o1777)
    check(path)


def test_follows_links_on_the_way_and_looks_at_both_ways(folder: Path) -> None:
    (folder / "real" / "deep").mkdir(parents=True)
    put(folder / "real" / "deep" / "f")
    (folder / "relative").symlink_to("real/deep")
    (folder / "absolute").symlink_to(folder / "real")
    check(folder / "relative" / "f")
    check(folder / "absolute" / "deep" / ".." / "deep" / "f")
    (folder / "real").chmod(0o777)
    assert f"{folder}/real, which it is in" in refused(folder / "relative" / "f")


def test_links_that_lead_to_each_other_come_to_an_end(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        check(folder / "a" / "f")


@as_root
def test_refuses_what_is_a_strangers(folder: Path) -> None:
    path = put(folder / "f")
    os.chown(path, STRANGER, -1)
    assert refused(path) == f"belongs to uid {STRANGER}, not to root: chown root {path}"
    check(path, DRAFT)
    check(path, Trust(owners=frozenset({STRANGER})))


@as_root
def test_refuses_what_lies_in_a_strangers_folder(folder: Path) -> None:
    (folder / "theirs").mkdir()
    path = put(folder / "theirs" / "f")
    os.chown(folder / "theirs", STRANGER, -1)
    assert refused(path).startswith(f"{folder}/theirs, which it is in, belongs to uid {STRANGER}")


@as_root
def test_refuses_a_way_through_a_strangers_link(folder: Path) -> None:
    """In a sticky folder anybody may leave a link that leads from one file of ours to another."""
    (folder / "real").mkdir()
    put(folder / "real" / "f")
    (folder / "link").symlink_to("real")
    os.lchown(folder / "link", STRANGER, -1)
    assert refused(folder / "link" / "f").endswith(f"chown -h root {folder}/link")


@as_root
def test_refuses_a_folder_on_the_way_that_a_strange_group_can_write(folder: Path) -> None:
    (folder / "shared").mkdir()
    path = put(folder / "shared" / "f")
    (folder / "shared").chmod(0o775)
    check(path)
    os.chown(folder / "shared", -1, STRANGER)
    (folder / "shared").chmod(0o775)
    assert f"lets its group {STRANGER} write to it (mode 0775)" in refused(path)


def test_open_descriptors_are_closed_again(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - of descriptors, not of paths
    (folder / "link").symlink_to("nowhere")
    (folder / "open").mkdir()
    put(folder / "open" / "f")
    (folder / "open").chmod(0o777)
    for path in (folder / "link", folder, folder / "open" / "f"):
        refused(path)
    with pytest.raises(FileNotFoundError):
        check(folder / "absent")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
