"""Policy files: what they mean, and what is said about those that cannot be used."""

import os
from pathlib import Path

import pytest

from wattkeeper.config.policy import load_policies, parse_policies
from wattkeeper.core.policy import Cap, Compare, Glob, Hosts, Keyword, Percent, Policy, Selector, Watts
from wattkeeper.errors import ConfigError
from wattkeeper.model import Source
from wattkeeper.system.trust import TO_READ

GOLDEN = Path(__file__).parent.parent / "golden"
SHIPPED = Path(__file__).parent.parent.parent / "policies"

DESIGNED = """\
version: 1
profiles:
  eco: {cap: 60%}
  efficient:
    cap: [{model: "*V100*", cap: 150W}, {model: "*A100*", cap: 0.25kW}]
caps:
  - name: debug
    when: {partition: [debug, interactive]}
    cap: eco
  - name: ml-groups
    when: {account: "ml-*", gpus: ">=2", not: {user: [alice]}}
    cap: 80%
    requests: {min: 50%, max: baseline}
  - name: rack1
    when: {node: "gpu[01-03]", account: 0123, partition: no}
    cap: efficient
    mode: observe
  - name: everyone
    cap: baseline
    requests: {min: min, max: baseline, outside: deny}
ceilings:
  - name: hot-room
    when: {node: ["gpu0*", "login1,login2"]}
    cap: 70%
idle: {cap: min}
shared_gpus: lowest
"""


def parse(*texts: str) -> Policy:
    return parse_policies([(f"{at}.yaml", text) for at, text in enumerate(texts)])[0]


def errors(*texts: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(*texts)
    return [str(problem) for problem in caught.value.problems]


def warnings(text: str) -> list[str]:
    return [str(problem) for problem in parse_policies([("p", "version: 1\n" + text)])[1]]


def caps(*rules: str) -> str:
    return "caps:\n" + "".join(f"  - {rule}\n" for rule in rules)


def test_reads_what_the_design_shows() -> None:
    policy = parse(DESIGNED)
    debug, groups, rack, everyone = policy.rules
    assert debug.cap == Cap("eco", (("*", Percent(6000)),), Source("0.yaml", 9), profile="eco")  # type: ignore[arg-type]
    assert debug.requests is None
    assert debug.source == Source("0.yaml", 7)
    assert groups.when.selectors == (
        Selector("account", (Glob("ml-*"),)),
        Selector("gpus", (Compare(">=", 2),)),
    )
    assert groups.when.negated is not None
    assert groups.when.negated.selectors == (Selector("user", (Glob("alice"),)),)
    assert groups.requests is not None
    assert groups.requests.max.choices == (("*", Keyword.BASELINE),)
    assert groups.requests.outside == "clamp"
    assert rack.observe
    assert rack.cap.choices == (("*V100*", Watts(150_000)), ("*A100*", Watts(250_000)))  # type: ignore[arg-type]
    assert everyone.requests is not None
    assert everyone.requests.outside == "deny"
    assert policy.idle.choices == (("*", Keyword.MIN),)
    assert policy.shared_gpus == "lowest"
    assert set(policy.profiles) == {"eco", "efficient"}


def test_reads_every_scalar_as_text() -> None:
    rack = parse(DESIGNED).rules[2]
    assert Selector("account", (Glob("0123"),)) in rack.when.selectors
    assert Selector("partition", (Glob("no"),)) in rack.when.selectors


def test_reads_hostlists_and_patterns_of_nodes() -> None:
    policy = parse(DESIGNED)
    assert policy.rules[2].when.selectors[0] == Selector("node", (Hosts(frozenset({"gpu01", "gpu02", "gpu03"})),))
    (nodes,) = policy.ceilings[0].when.selectors
    assert nodes == Selector("node", (Glob("gpu0*"), Hosts(frozenset({"login1", "login2"}))))


def test_defaults_where_nothing_is_said() -> None:
    policy = parse("version: 1")
    assert policy.rules == ()
    assert policy.ceilings == ()
    assert policy.idle.choices == (("*", Keyword.BASELINE),)
    assert policy.shared_gpus == "highest"
    assert parse("version: 1\ncaps: []").rules == ()


def test_merges_files_in_order_and_sees_profiles_of_later_ones() -> None:
    one = "version: 1\n" + caps("{name: a, when: {user: a}, cap: eco}")
    two = "version: 1\nprofiles: {eco: {cap: 60%}}\n" + caps("{name: b, cap: baseline}")
    policy = parse(one, two)
    assert [rule.name for rule in policy.rules] == ["a", "b"]
    assert [rule.source.file for rule in policy.rules] == ["0.yaml", "1.yaml"]
    assert policy.rules[0].cap.profile == "eco"


def test_says_where_a_name_was_given_before() -> None:
    one = "version: 1\nprofiles: {eco: {cap: 60%}}\nidle: {cap: min}\nshared_gpus: highest\n" + caps(
        "{name: a, cap: 60%}"
    )
    found = errors(one, one)
    assert "1.yaml:2: profiles.eco: the name 'eco' is taken by 0.yaml:2" in found
    assert "1.yaml:3: idle: is already given in 0.yaml:3: once over all files" in found
    assert "1.yaml:4: shared_gpus: is already given in 0.yaml:4: once over all files" in found
    assert "1.yaml:6: caps[a].name: the name 'a' is taken by 0.yaml:6" in found


def test_digest_tells_texts_apart() -> None:
    assert parse(DESIGNED).digest == parse(DESIGNED).digest
    assert parse(DESIGNED).digest != parse(DESIGNED + "# changed\n").digest
    assert parse("version: 1").digest != parse("version: 1", "version: 1").digest


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("", "when: {user: u}"),
        ("when: {}", ""),
        ("when: {user: u}", "when: {user: u}"),
        ("when: {partition: [a, b]}", "when: {partition: a, user: x}"),
        ("when: {account: 'ml-*'}", "when: {account: [ml-a, 'ml-b*']}"),
        ("when: {gpus: '>=2'}", "when: {gpus: [4, '>5']}"),
        ("when: {gpus: ['<2', '>=2']}", "when: {gpus: '!=7'}"),
        ("when: {node: 'n[1-9]'}", "when: {node: 'n[2-3]'}"),
        ("when: {node: 'n*'}", "when: {node: 'n[2-3]'}"),
        ("when: {gpu_model: '*v100*'}", "when: {gpu_model: Tesla V100-PCIE-16GB}"),
        ("when: {not: {user: a}}", "when: {not: {user: [a, b]}}"),
    ],
)
def test_finds_rules_that_are_never_reached(earlier: str, later: str) -> None:
    lines = [f"{{name: {name}, cap: 60%, {when}}}" for name, when in (("first", earlier), ("second", later))]
    (found,) = errors("version: 1\n" + caps(*lines))
    why = "never reached: rule 'first' (0.yaml:3) comes first and fits every job that this rule fits"
    assert found == f"0.yaml:4: caps[second]: {why}"


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("when: {user: '*'}", ""),  # a job whose user is not known is absent from the first
        ("when: {partition: a, user: x}", "when: {partition: a}"),
        ("when: {not: {user: [a, b]}}", "when: {not: {user: a}}"),
        ("when: {account: 'ml-?'}", "when: {account: 'ml-*'}"),
        ("when: {gpus: '>2'}", "when: {gpus: '>=2'}"),
        ("when: {node: 'n[1-3]'}", "when: {node: 'n*'}"),
        ("when: {user: v100}", "when: {user: V100}"),
    ],
)
def test_leaves_reachable_rules_alone(earlier: str, later: str) -> None:
    parse("version: 1\n" + caps(f"{{name: first, cap: 60%, {earlier}}}", f"{{name: second, cap: 60%, {later}}}"))


def test_selects_by_what_a_look_up_tells() -> None:
    (rule,) = parse(
        "version: 1\n" + caps("{name: a, cap: 60%, when: {group: [ml, 'bio*'], qos: high, job_name: 'a,b'}}")
    ).rules
    assert rule.when.selectors == (
        Selector("group", (Glob("ml"), Glob("bio*"))),
        Selector("qos", (Glob("high"),)),
        Selector("job_name", (Glob("a,b"),)),
    )
    for field in ("group", "qos"):
        (found,) = errors("version: 1\n" + caps(f"{{name: a, cap: 60%, when: {{{field}: 'a,b'}}}}"))
        assert found == f"0.yaml:3: caps[a].when.{field}: 'a,b' holds a comma: write a list, [a, b]"


def test_warns_of_caps_that_a_model_cannot_take() -> None:
    assert warnings('profiles: {x: {cap: [{model: "*V100*", cap: 500W}]}}') == [
        (
            "p:2: warning: profiles.x.cap: 500 W is outside of what Tesla V100-PCIE-16GB (and 4 more) "
            "is known to take, 100 W to 350 W: it is clamped"
        )
    ]
    bounds = "cap: 50W, requests: {min: 100W, max: 301W}"
    assert len(warnings(caps(f'{{name: a, when: {{gpu_model: "*A40"}}, {bounds}}}'))) == 2
    assert len(warnings("profiles: {x: {cap: 500W}}\n" + caps('{name: a, when: {gpu_model: "*V100*"}, cap: x}'))) == 1
    assert warnings("profiles: {x: {cap: 5W}}\n" + caps("{name: a, cap: 5kW}")) == []
    assert warnings(caps('{name: a, cap: [{model: "*V100*", cap: 150W}, {model: "*B300*", cap: 1400W}]}')) == []


@pytest.mark.parametrize(
    ("rule", "other"),
    [
        ("when: {partition: boost}, cap: baseline", "cap: 70%"),
        ("when: {partition: boost, user: u}, cap: 80%", "cap: 70%"),
        ("when: {constraint: fast}, cap: 300W", "cap: 250W"),
        ("when: {gpus: '>=4'}, cap: 60%, requests: {min: min, max: max}", "cap: 70%"),
        ("when: {not: {num_nodes: 1}}, cap: max", "cap: min"),
        ("when: {job_name: 'prod*', group: staff}, cap: baseline", "when: {group: staff}, cap: 70%"),
    ],
)
def test_warns_of_power_that_users_can_choose(rule: str, other: str) -> None:
    (found,) = warnings(caps(f"{{name: a, {rule}}}", f"{{name: b, {other}}}"))
    assert "p:3: warning: caps[a]: gives more power" in found
    assert "which users choose themselves" in found


@pytest.mark.parametrize(
    ("rule", "other"),
    [
        ("when: {partition: slow}, cap: 50%", "cap: 70%"),
        ("when: {account: vip}, cap: baseline", "cap: 70%"),
        ("when: {group: vip}, cap: baseline", "cap: 70%"),
        ("when: {qos: high}, cap: baseline", "cap: 70%"),
        ("when: {reservation: vip, node: n1}, cap: baseline", "cap: 70%"),
        ("when: {partition: boost}, cap: baseline", "cap: 70%, requests: {min: min, max: baseline}"),
        ("when: {partition: boost}, cap: 250W", "cap: 70%"),
        ("when: {partition: boost}, cap: baseline", "when: {user: u}, cap: 70%"),
    ],
)
def test_does_not_warn_where_it_is_not_sure(rule: str, other: str) -> None:
    assert warnings(caps(f"{{name: a, {rule}}}", f"{{name: b, {other}}}")) == []


@pytest.mark.parametrize("name", ["default.yaml", "mit-v100.yaml"])
def test_shipped_policies_are_fine(name: str) -> None:
    policy, doubts = load_policies(SHIPPED / name, TO_READ)
    assert doubts == ()
    assert policy.rules[-1].name == "everyone"


def test_reads_a_folder_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("20-b.yaml", "10-a.yml", ".hidden.yaml", "old.yaml~", "README"):
        (tmp_path / name).write_text(
            "version: 1\n" + caps(f"{{name: r{name[:2]}, when: {{user: u{name[:2]}}}, cap: min}}")
        )
    policy, _ = load_policies(tmp_path)
    assert [rule.name for rule in policy.rules] == ["r10", "r20"]


def test_a_folder_without_policy_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no \*\.yaml"):
        load_policies(tmp_path)


def test_reports_unreadable_files_together_with_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"version: 1\n# caf\xe9\n")
    (tmp_path / "b.yaml").write_text("version: 3")
    (tmp_path / "c.yaml").mkdir()
    with pytest.raises(ConfigError) as caught:
        load_policies(tmp_path)
    assert [(Path(p.file).name, p.line) for p in caught.value.problems] == [("a.yaml", 2), ("c.yaml", 0), ("b.yaml", 1)]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        load_policies(tmp_path / "p.yaml")


def test_a_policy_that_others_can_change_is_refused_by_its_name(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("version: 1\n")
        (tmp_path / name).chmod(0o644)
    load_policies(tmp_path)
    (tmp_path / "b.yaml").chmod(0o664)
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/b\.yaml: lets its group .* chmod g-w {tmp_path}/b\.yaml$"):
        load_policies(tmp_path)
    (tmp_path / "b.yaml").unlink()
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/b\.yaml: is a symbolic link"):
        load_policies(tmp_path)
    (tmp_path / "b.yaml").unlink()
    tmp_path.chmod(0o757)
    with pytest.raises(ConfigError, match=rf"^{tmp_path}: lets everybody write to it .* chmod o-w {tmp_path}$"):
        load_policies(tmp_path)
