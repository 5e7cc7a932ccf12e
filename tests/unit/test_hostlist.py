"""Hostlists mean what `scontrol show hostnames` says they mean, and cannot be made to explode."""

import pytest

from wattkeeper.core.hostlist import MAX_HOSTS, HostlistError, expand


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node7", ["node7"]),
        ("node[1-3]", ["node1", "node2", "node3"]),
        ("node[07-10]", ["node07", "node08", "node09", "node10"]),
        ("node[1-2,07]x[1-2]", ["node1x1", "node1x2", "node2x1", "node2x2", "node07x1", "node07x2"]),
        ("a,b[1,3],c", ["a", "b1", "b3", "c"]),
        ("a, a , b", ["a", "b"]),
        ("node[1-2]-ib0.site", ["node1-ib0.site", "node2-ib0.site"]),
        ("[1-2]", ["1", "2"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
    ],
)
def test_expands(text: str, names: list[str]) -> None:
    assert list(expand(text)) == names


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,,b",
        "node[",
        "node]",
        "node[1",
        "node[]",
        "node[3-1]",
        "node[a-b]",
        "node[1-2",
        "a b",
        "n[[1]]",
        "n[1-2-3]",
        "gpu*",
    ],
)
def test_refuses_what_is_no_hostlist(text: str) -> None:
    with pytest.raises(HostlistError):
        expand(text)


@pytest.mark.parametrize("text", ["n[0-65536]", "n[0-999999999]", "n[0-999]x[0-999]x[0-999]x[0-999]", "a[0-65535],b"])
def test_refuses_more_names_than_slurm_has_nodes(text: str) -> None:
    with pytest.raises(HostlistError, match="more than 65,536"):
        expand(text)


def test_takes_as_many_names_as_slurm_can_have() -> None:
    assert len(expand(f"n[0-{MAX_HOSTS - 1}]")) == MAX_HOSTS
