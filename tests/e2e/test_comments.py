"""What users write into `--comment`, through the real sbatch, slurmctld and slurmd to a limit and an outcome."""

import random
import re
import string
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.walking import Gate, by_minor, left_as_found, limits, report, wait_limits, wait_looks
from tests.lab import Lab

POLICY = """\
version: 1
profiles:
  eco: {cap: 60%}
caps:
  - name: everyone
    cap: 500W
    requests: {min: min, max: baseline}
"""
RULE_W = 500.0
NOISE = "".join(random.Random(1).choices(string.ascii_letters + string.digits + " ;,:=%{}[]\"'\\$()|&<>*", k=1024))  # noqa: S311 - no secret

Case = tuple[str, float, str, str | None]
CASES: dict[str, Case] = {
    "nothing": ("", RULE_W, "none", None),
    "watts": ("power=250W", 250, "granted", "250W"),
    "a number": ("power=250", 250, "granted", "250"),
    "kilowatts": ("POWER=0.25kw", 250, "granted", "0.25kw"),
    "percent among words": ("foo; power=70% bar", 490, "granted", "70%"),
    "a profile in JSON": ('{"power":"eco","other":1}', 420, "granted", "eco"),
    "a number in JSON": ('{"other": [1, 2], "power": 300}', 300, "granted", "300"),
    "min": ("power=min", 200, "granted", "min"),
    "baseline": ("power=baseline", 700, "granted", "baseline"),
    "too much": ("power=99999W", 700, "clamped", "99999W"),
    "too little": ("power=50W", 200, "clamped", "50W"),
    "the letter O": ("power=25OW", RULE_W, "malformed", "25OW"),
    "an unknown profile": ("power=turbo", RULE_W, "malformed", "turbo"),
    "nothing behind it": ("power= ", RULE_W, "malformed", ""),
    "two that differ": ("power=250W power=300W", RULE_W, "malformed", "power=250W power=300W"),
    "two that agree": ("power=250W power=0.25kW", 250, "granted", "250W"),
    "part of a word": ("horsepower=250W", RULE_W, "none", None),
    "1,024 characters of noise": (NOISE, RULE_W, "none", None),
    "a request at the end of noise": (f"{NOISE[:1012]} power=250W", 250, "granted", "250W"),
    "control characters around it": ("\x1b]0;title\x07\tpower=250W\x1b[31m", 250, "granted", "250W"),
    "control characters in it": ("power=\x1b[31m250W", RULE_W, "malformed", ""),
    "emoji around it": ("🔥 power=250W 🔥", 250, "granted", "250W"),
    "emoji in it": ("power=🔥", RULE_W, "malformed", "🔥"),
    "text that turns around": ("power=\u202e052", RULE_W, "malformed", "\\u202e052"),
    "quotes": ('it\'s "power=250W" `id` $(id) \\', 250, "granted", "250W"),
    "bytes that are no text": ("\udcff\udcfe power=250W", 250, "granted", "250W"),
}


@dataclass(frozen=True)
class Seen:
    """What a job read on its own GPU, and what the agent said about it."""

    limit_w: float
    report: dict[str, Any]


@pytest.fixture(scope="module")
def strict_lab(lab: Lab) -> Iterator[Lab]:
    """The lab under a policy that gives 500 W to whoever asks for nothing."""
    for guarded in left_as_found(lab):
        for node in guarded.nodes.values():
            node.write_policy(POLICY)
            node.agent.reload()
        yield guarded
        guarded.cancel_all()
        for node in guarded.nodes.values():
            node.write_policy(guarded.spec.policy)
            node.agent.reload()


def requests_total(lab: Lab) -> Counter[str]:
    """The counter of every node's agent, as Prometheus reads it, by outcome."""
    found: Counter[str] = Counter()
    for node in lab.nodes.values():
        with urllib.request.urlopen(node.agent.metrics_url, timeout=5) as page:  # noqa: S310 - http of this machine
            text = page.read().decode()
        for outcome, count in re.findall(
            r'^wattkeeper_requests_total\{outcome="(\w+)"\} ([0-9.]+)$', text, re.MULTILINE
        ):
            found[outcome] += int(float(count))
    return found


@pytest.fixture(scope="module")
def seen(strict_lab: Lab) -> dict[str, Seen]:
    """Every case's job, all submitted at once."""
    lab = strict_lab
    before = requests_total(lab)
    script = f'echo "own $SLURMD_NODENAME $SLURM_JOB_GPUS"; {lab.nvml}'
    jobs = {name: lab.sbatch(script, "--gres=gpu:1", "--comment", case[0]) for name, case in CASES.items()}
    found = {}
    for name, job in jobs.items():
        look = wait_looks(lab, job)[0]
        told = re.search(r"^own (\w+) (\d)$", lab.output(job), re.MULTILINE)
        assert told
        node = lab.nodes[told[1]]
        found[name] = Seen(by_minor(node, look)[int(told[2])], report(node, job))
    assert requests_total(lab) - before == Counter(case[2] for case in CASES.values())
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_comment(seen: dict[str, Seen], name: str) -> None:
    _, limit_w, outcome, asked = CASES[name]
    found = seen[name]
    assert found.limit_w == limit_w
    assert (found.report["outcome"], found.report["asked"]) == (outcome, asked)
    assert [gpu["cap_w"] for gpu in found.report["gpus"]] == [limit_w]


def test_nothing_that_users_wrote_reaches_the_log_or_the_message_raw(strict_lab: Lab, seen: dict[str, Seen]) -> None:
    texts = [node.agent.log_text() for node in strict_lab.nodes.values()]
    texts += [found.report["message"] for found in seen.values()]
    for text in texts:
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_a_newline_in_a_comment_forges_nothing(strict_lab: Lab) -> None:
    """The rest of the comment looks like another variable of the hook's environment."""
    lab, node = strict_lab, strict_lab.node(3)
    lab.wait_idle()
    wait_limits(node, 700, 700, 700, 700)
    gate = Gate(lab, "forged")
    comment = "power=250W\nSLURM_JOB_GPUS=0,1,2,3\nSLURM_JOB_UID=0\n"
    job = lab.sbatch(f"{lab.nvml}; {gate.wait}", "--gres=gpu:1", "-w", "node3", "--comment", comment)
    assert by_minor(node, wait_looks(lab, job)[0]) == limits(250, 700, 700, 700)
    assert [gpu["gpu"] for gpu in report(node, job)["gpus"]] == [0]
    held = {gpu["gpu"]: len(gpu["holders"]) for gpu in node.agent.get("/v1/status")["gpus"]}
    assert held == {0: 1, 1: 0, 2: 0, 3: 0}
    gate.open()
    lab.wait_done(job)
    wait_limits(node, 700, 700, 700, 700)
