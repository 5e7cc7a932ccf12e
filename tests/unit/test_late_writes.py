"""A write that got no answer may be done yet: what it leaves on the GPU is put right like any limit of ours."""

from dataclasses import replace

from tests.one_node import OneNode, gpu

from wattkeeper.config.policy import parse_policies
from wattkeeper.units import Milliwatts

POLICY = "version: 1\ncaps: [{name: all, cap: 400W}]\n"


def test_a_limit_that_came_too_late_for_its_job_is_taken_back() -> None:
    node = OneNode(gpu(0))
    node.state.policy = parse_policies([("policy.yaml", POLICY)])[0]
    device = next(iter(node.gpus.gpus.values()))
    for tell in (node.prolog(6, "0"), node.epilog(6)):
        assert tell.applied
    node.tick()
    assert device.reading.requested_mw == 700_000
    device.hang()
    assert not node.prolog(7, "0").applied
    device.mend()
    device.reading = replace(device.reading, requested_mw=Milliwatts(400_000))
    node.epilog(7)
    node.tick()
    node.tick()
    assert device.reading.requested_mw == 700_000
