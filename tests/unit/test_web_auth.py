"""Passwords on the metrics' listener, and the rate limit."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from tests.unit.web_here import Site, serving

from wattkeeper.api.web_auth import MOST_WAITING, MOST_WAITING_OF_ONE, Passwords

LONG = "p" * 72


def hashed(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(cost)).decode()


ALICE = hashed("alice's")
USERS = {"alice": ALICE, "bob": hashed(LONG)}


def config(path: Path, users: dict[str, str]) -> Path:
    path.write_text("basic_auth_users:\n" + "".join(f'  "{name}": "{stored}"\n' for name, stored in users.items()))
    return path


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    found = Passwords()
    yield found
    found.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return config(tmp_path / "web.yaml", USERS)


@pytest.fixture
def site(file: Path) -> Iterator[Site]:
    with serving(file) as found:
        yield found


def test_serves_whose_password_is_right(site: Site) -> None:
    assert site.get(login="alice:alice's").status == 200
    assert site.asked[0][1] is True
    assert site.get("/", login="alice:alice's").status == 200


@pytest.mark.parametrize(
    "login", ["alice:wrong", "alice:", "bob:alice's", "mallory:alice's", ":alice's", "Alice:alice's", "alice:alice's "]
)
def test_serves_nobody_else(site: Site, login: str) -> None:
    answer = site.get(login=login)
    assert (answer.status, answer.body) == (401, b"Unauthorized\n")  # type: ignore[attr-defined]
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert site.asked == []


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !!!", "Basic YQ==", "Bearer abc", "Basic " + "A" * 4000, "Digest username=alice"]
)
def test_what_is_no_password_costs_no_check(site: Site, header: str) -> None:
    assert site.get(headers={"Authorization": header}).status == 401
    assert site.get("/nothing").status == 401
    assert site.checks == 0


def test_a_right_password_is_checked_once(site: Site) -> None:
    for _ in range(10):
        assert site.get(login="alice:alice's").status == 200
    assert site.checks == 1
    for _ in range(3):
        assert site.get(login="alice:wrong").status == 401
    assert site.checks == 4
    assert site.get(login="alice:alice's").status == 200
    assert site.checks == 4


def test_bcrypt_sees_72_bytes(site: Site) -> None:
    assert site.get(login=f"bob:{LONG}and more").status == 200
    assert site.get(login=f"bob:{LONG[1:]}").status == 401


def test_a_changed_password_holds_at_once(site: Site, file: Path) -> None:
    assert site.get(login="alice:alice's").status == 200
    config(file, {**USERS, "alice": hashed("new")})
    assert site.get(login="alice:alice's").status == 401
    assert site.get(login="alice:new").status == 200
    config(file, {"bob": USERS["bob"]})
    assert site.get(login="alice:new").status == 401


def right(passwords: Passwords, user: str, password: str, users: dict[str, str] = USERS) -> bool | None:
    return asyncio.run(passwords.right(users, user, password.encode(), "10.0.0.1"))


def test_an_unknown_user_costs_what_a_known_one_does(passwords: Passwords) -> None:
    users = {"alice": hashed("a", 11), "bob": hashed("b", 11)}

    def took_s(user: str) -> float:
        """CPU time of all threads: the one that checks is nice, and waits for others on a loaded machine."""
        start = time.process_time()
        assert right(passwords, user, "wrong", users) is False
        return time.process_time() - start

    known, unknown = (min(took_s(user) for _ in range(3)) for user in ("alice", "mallory"))
    assert passwords.checks == 6
    assert 1 / 3 < unknown / known < 3


def test_the_decoy_of_a_name_is_always_the_same_and_costs_what_some_user_does(passwords: Passwords) -> None:
    users = {"alice": hashed("a", 4), "bob": hashed("b", 5)}
    decoys = {name: passwords._decoy(users, name) for name in map(str, range(50))}
    assert {decoy[:7] for decoy in decoys.values()} == {"$2b$04$", "$2b$05$"}
    assert all(passwords._decoy(users, name) == decoy for name, decoy in decoys.items())


def test_the_queue_is_short_and_one_address_gets_a_part_of_it(passwords: Passwords) -> None:
    users = {"alice": hashed("a", 10)}

    async def crowd() -> None:
        one = [passwords.right(users, "alice", b"wrong%d" % at, "10.0.0.1") for at in range(40)]
        asked = asyncio.gather(*one)
        await asyncio.sleep(0)
        assert passwords.checks == MOST_WAITING_OF_ONE
        others = asyncio.gather(*(passwords.right(users, "alice", b"w", f"10.0.1.{at}") for at in range(3)))
        more = asyncio.gather(*(passwords.right(users, "alice", b"x%d" % at, f"10.0.2.{at}") for at in range(40)))
        found = [*await asked, *await others, *await more]
        assert passwords.checks == MOST_WAITING
        assert found.count(None) == 83 - MOST_WAITING - 2  # three asked the same: that is one check
        assert found.count(False) == MOST_WAITING + 2
        assert sum(thread.name.startswith("password") for thread in threading.enumerate()) == 1
        assert not passwords._running
        assert not passwords._of_client

    asyncio.run(crowd())


def test_no_password_stays_in_memory_where_it_was_right(passwords: Passwords) -> None:
    assert right(passwords, "alice", "alice's") is True
    assert "alice's" not in repr(passwords.__dict__)


def test_rate_limit(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text("rate_limit: {interval: 1h, burst: 3}\n")
    with serving(path) as site:
        assert [site.get().status for _ in range(5)] == [200, 200, 200, 429, 429]
