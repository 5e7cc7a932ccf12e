"""Models of GPU: what is shipped is whole and has its sources; one's own file is read, or refused with reasons."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from wattkeeper.config.yaml_lines import Node, Table, Text, parse
from wattkeeper.errors import ConfigError
from wattkeeper.simulator.library import SimulatorError
from wattkeeper.simulator.models import (
    DEFAULT_GPUS,
    SHIPPED,
    Lack,
    Model,
    find_model,
    load_models,
    parse_selection,
    shipped_models,
)

HEADER = SHIPPED.with_name("models.h").read_text()
MODELS = tuple(shipped_models().values())

SEEN = {  # watts; the facts page's "Seen", and nvidia-smi -q of a GH200 for its GPU (gls/GH200_smi.py of thamada/gls)
    "V100-SXM2": (150, 300),
    "A100-SXM4-40GB": (100, 400),
    "A100-SXM4-80GB": (100, 500),
    "H100-SXM5": (200, 700),
    "GH200": (100, 900),
    "A40": (100, 300),
    "RTX6000": (100, 260),
    "B200": (200, 1000),
}
DESIGNED = {  # watts; NVIDIA's data sheets
    "V100-PCIe": 250,
    "V100-SXM2": 300,
    "A100-PCIe-40GB": 250,
    "A100-PCIe-80GB": 300,
    "A100-SXM4-40GB": 400,
    "A100-SXM4-80GB": 400,
    "H100-PCIe": 350,
    "H100-SXM5": 700,
    "H200": 700,
    "L40S": 350,
    "A40": 300,
    "RTX3090": 350,
    "RTX6000": 260,
    "B200": 1000,
}
MINE = """\
models:
  Mine-1:
    aliases: [mine, own]
    board: {name: My GPU, pci: "10de:1234", architecture: hopper, compute: 9.0, brand: nvidia, memory: 80GiB}
    limit: {default: 300W, min: 100W, max: 0.35kW}
    power: {idle: 30W, static: 60W, peak: 300W, voltage_floor: 88.5%}
    clocks: {sm: 1.98GHz, lowest: 345MHz, memory: 2619MHz}
    cooling: {ambient: 22.5C, resistance: 0.15C/W, time_constant: 30s, slowdown: 89C, shutdown: 95C}
    sensors: {power_update: 100ms, energy_update: 100ms}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def struct_members() -> list[str]:
    body = HEADER[HEADER.index("struct wk_model {") :]
    return re.findall(r"^    (?:char|uint32_t) (\w+)", body, re.MULTILINE)


def test_a_model_is_the_struct_of_the_library() -> None:
    assert [field.name for field in fields(Model)] == [*struct_members(), "aliases"]
    enum = re.findall(r"WK_LACKS_(\w+) = 1u << ([0-9])", HEADER)
    assert {name: 1 << int(bit) for name, bit in enum} == {lack.name: lack.value for lack in Lack}


def test_every_promised_model_is_there() -> None:
    assert set(shipped_models()) == {*SEEN, *DESIGNED}
    for key, model in shipped_models().items():
        assert (model.key, find_model(key), find_model(key.upper())) == (key, model, model)


@pytest.mark.parametrize(
    ("name", "key", "nvml", "pci_id", "mib", "watts"),
    [
        ("H100", "H100-SXM5", "NVIDIA H100 80GB HBM3", 0x233010DE, 81559, (200, 700, 700)),
        ("H100-PCIe", "H100-PCIe", "NVIDIA H100 PCIe", 0x233110DE, 81559, (200, 350, 350)),
        ("A100", "A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB", 0x20B210DE, 81920, (100, 400, 500)),
        ("v100", "V100-SXM2", "Tesla V100-SXM2-16GB", 0x1DB110DE, 16384, (150, 300, 300)),
        ("v100-pcie", "V100-PCIe", "Tesla V100-PCIE-16GB", 0x1DB410DE, 16384, (100, 250, 250)),
    ],
)
def test_names_in_use_keep_their_meaning(
    name: str, key: str, nvml: str, pci_id: int, mib: int, watts: tuple[int, int, int]
) -> None:
    model = find_model(name)
    assert (model.key, model.name, model.pci_id, model.memory_mib) == (key, nvml, pci_id, mib)
    assert (model.min_mw, model.default_mw, model.max_mw) == tuple(watt * 1000 for watt in watts)


@pytest.mark.parametrize("key", SEEN)
def test_ranges_are_those_seen_on_boards(key: str) -> None:
    model = shipped_models()[key]
    assert (model.min_mw, model.max_mw) == tuple(watt * 1000 for watt in SEEN[key])


@pytest.mark.parametrize("key", DESIGNED)
def test_default_limits_are_the_design_power(key: str) -> None:
    assert shipped_models()[key].default_mw == DESIGNED[key] * 1000


def test_only_grace_hopper_has_a_module() -> None:
    assert [model.key for model in MODELS if model.module_max_mw or model.companion_mw] == ["GH200"]
    model = find_model("GH200")
    assert (model.module_min_mw, model.module_default_mw, model.module_max_mw) == (200_000, 1_000_000, 1_000_000)
    assert model.peak_mw + model.companion_mw <= model.module_max_mw


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.key)
def test_shipped_models_are_sane(model: Model) -> None:
    assert model.idle_mw < model.static_mw < model.peak_mw <= model.max_mw
    assert 0.05 < model.idle_mw / model.peak_mw < 0.2
    assert model.min_mw <= model.default_mw <= model.max_mw
    assert 0 < model.voltage_floor_bp <= 10_000 > model.overshoot_bp
    assert model.min_clock_mhz < model.sm_clock_mhz
    hottest = model.ambient_mc / 1000 + model.peak_mw / 1000 * model.resistance_uc / 1e6
    assert 50 < hottest < model.slowdown_c - 3 < model.shutdown_c
    assert 20_000 <= model.thermal_ms <= 60_000
    assert model.pci_id & 0xFFFF == 0x10DE


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.key)
def test_sensors_are_those_of_their_generation(model: Model) -> None:
    volta, turing, ampere, hopper = 5, 6, 7, 9
    ga100 = model.architecture == ampere and model.compute_minor == 0
    averages = model.architecture >= ampere and not ga100
    assert model.power_update_ms == model.energy_update_ms == (20 if model.architecture == volta else 100)
    assert (model.power_window_ms == 1000) == (model.average_window_ms == 1000) == averages
    if ga100 or model.architecture == hopper:
        assert model.instant_window_ms == 25
    if ga100:
        assert (model.power_window_ms, model.average_window_ms) == (25, 0)
    if model.architecture in {volta, turing}:
        assert model.power_window_ms <= model.power_update_ms


def test_the_fit_to_the_zeus_traces() -> None:
    model = find_model("V100-PCIe")
    assert (model.static_mw, model.voltage_floor_bp, model.overshoot_bp) == (57_500, 8_850, 70)


def test_what_boards_lack() -> None:
    assert Lack.FAN in find_model("H100").lacks
    assert find_model("RTX3090").lacks == Lack.ECC
    assert find_model("RTX6000").lacks == Lack(0)


def tables(node: Node) -> dict[str, Node]:
    assert isinstance(node, Table)
    return {key.value: value for key, value in node.entries}


def groups() -> Iterator[tuple[str, dict[str, Node]]]:
    """Each group of each shipped model, as its YAML has it."""
    root, problems = parse(str(SHIPPED), SHIPPED.read_text())
    assert root is not None
    assert not problems
    for key, model in tables(tables(root)["models"]).items():
        for group, body in tables(model).items():
            if group != "aliases":
                yield f"{key}.{group}", tables(body)


def sources_of(body: dict[str, Node]) -> dict[str, str]:
    """The source of each figure of a group."""
    source, figures = body["source"], set(body) - {"source"}
    if isinstance(source, Text):
        return dict.fromkeys(figures, source.value)
    named = {figure: text.value for figure, text in tables(source).items() if isinstance(text, Text)}
    rest = named.pop("rest", "")
    return {figure: named.get(figure, rest) for figure in figures | set(named)}


@pytest.mark.parametrize(("group", "body"), [pytest.param(*found, id=found[0]) for found in groups()])
def test_every_figure_has_its_source(group: str, body: dict[str, Node]) -> None:
    assert "source" in body
    unsaid = [figure for figure, source in sources_of(body).items() if not source]
    assert not unsaid


def test_every_source_is_used() -> None:
    root, _ = parse(str(SHIPPED), SHIPPED.read_text())
    assert root is not None
    used = {part.strip() for _, body in groups() for text in sources_of(body).values() for part in text.split(",")}
    assert not set(tables(tables(root)["sources"])) - used


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (model,) = load_models(write(tmp_path, MINE))
    assert (model.key, model.aliases, model.name) == ("Mine-1", ("mine", "own"), "My GPU")
    assert (model.memory_mib, model.max_mw, model.sm_clock_mhz) == (81_920, 350_000, 1_980)
    assert (model.ambient_mc, model.resistance_uc, model.thermal_ms) == (22_500, 150_000, 30_000)
    assert (model.voltage_floor_bp, model.pci_id) == (8_850, 0x123410DE)
    assert (model.overshoot_bp, model.module_max_mw, model.mig_slices, model.lacks) == (0, 0, 0, Lack(0))
    assert (model.power_window_ms, model.average_window_ms) == (0, 0)


@pytest.mark.parametrize(
    ("was", "becomes", "problem"),
    [
        ("min: 100W", "min: 100MHz", r":5: models\[Mine-1\].limit.min: '100MHz' is not possible \(allowed: a power"),
        ("min: 100W", "min: 400W", r":5: models\[Mine-1\].limit.min: 400W is more than 'default', 300W"),
        ("power_update: 100ms", "power_update: 200ms", r"power_update: '200ms' is not possible"),
        ("max: 0.35kW", "max: 200W", r":5: models\[Mine-1\].limit.default: 300W is more than 'max', 200W"),
        ("power_update: 100ms", "power_update: 200ms", r"power_update: '200ms' is not possible"),
        ("max: 0.35kW", "max: 5000kW", r":5: .*limit.max: '5000kW' is not possible \(allowed: .* at most 100kW"),
        ("power_update: 100ms", "power_update: 200ms", r"power_update: '200ms' is not possible"),
        ("max: 0.35kW", "most: 350W", r":5: models\[Mine-1\].limit.most: unknown key"),
        ("power_update: 100ms", "power_update: 200ms", r"power_update: '200ms' is not possible"),
        ("max: 0.35kW", "", r":5: models\[Mine-1\].limit: 'max' is missing"),
        ("idle: 30W", "idle: 301W", r":6: models\[Mine-1\].power.idle: 301W is more than 'static'"),
        ("static: 60W", "static: 400W", r":6: models\[Mine-1\].power.static: 400W is more than 'peak', 300W"),
        ("88.5%", "0.885", r":6: .*voltage_floor: '0.885' is not possible \(allowed: a share such as 88.5%"),
        ("88.5%", "101%", r":6: .*voltage_floor: '101%' is not possible"),
        ("88.5%", "88.5%, overshoot: 0%", r":6: .*overshoot: '0%' is not possible"),
        ("lowest: 345MHz", "lowest: 2GHz", r":7: models\[Mine-1\].clocks.lowest: 2GHz is more than 'sm', 1.98GHz"),
        ("memory: 2619MHz", "memory: 2.5MHz", r":7: .*clocks.memory: '2.5MHz' is not possible"),
        ("30s", "30", r":8: .*time_constant: '30' is not possible \(allowed: a time such as 30s"),
        ("0.15C/W", "0.15C", r":8: .*resistance: '0.15C' is not possible \(allowed: degrees Celsius a watt"),
        ("slowdown: 89C", "slowdown: 96C", r":8: .*cooling.slowdown: 96C is more than 'shutdown', 95C"),
        ("power_update: 100ms", "power_update: 50ms", r":9: .*power_update: '50ms' .*\(allowed: a multiple of 20ms"),
        ("energy_update: 100ms", "energy_update: 11s", r":9: .*energy_update: '11s' is not possible"),
        ("energy_update: 100ms", "energy_update: {}", r":9: .*energy_update: must be a text, not a mapping"),
        ("hopper", "hoper", r":4: .*architecture: 'hoper' is not one of these: did you mean 'hopper'\?"),
        ("brand: nvidia", "brand: amd", r":4: .*brand: 'amd' is not one of these"),
        ("compute: 9.0", "compute: 9", r":4: .*compute: '9' is not possible"),
        ("10de:1234", "1234", r":4: .*board.pci: '1234' is not possible \(allowed: vendor and device"),
        ("80GiB", "80GB", r":4: .*board.memory: '80GB' is not possible \(allowed: a size such as 81920MiB"),
        ("80GiB", "80GiB, lacks: [fans]", r":4: .*board.lacks: 'fans' is not one of these: did you mean 'fan'\?"),
        ("80GiB", "80GiB, mig_slices: 8", r":4: .*mig_slices: '8' is not possible \(allowed: 0 to 7\)"),
        ("My GPU", "G" * 64, r":4: models\[Mine-1\].board.name: is not possible \(allowed: 1 to 63 bytes"),
        ("My GPU", "é" * 32, r":4: models\[Mine-1\].board.name: is not possible"),
        ("Mine-1:", "M" * 24 + ":", r":2: .*: 'M{24}' cannot be a model's key \(allowed: 1 to 23 of A-Z"),
        ("Mine-1:", "'Mine:1':", r":2: models\[Mine:1\]: 'Mine:1' cannot be a model's key"),
        ("[mine, own]", "[MINE-1]", r":3: models\[Mine-1\].aliases: 'MINE-1' is taken \(on line 2\)"),
        ("[mine, own]", "[own, own]", r":3: models\[Mine-1\].aliases: 'own' is taken \(on line 3\)"),
        ("    sensors:", "    senses:", r":9: models\[Mine-1\].senses: unknown key: did you mean 'sensors'\?"),
        ("    sensors:", "    senses:", r":3: models\[Mine-1\]: 'sensors' is missing"),
        ("    sensors:", "    module: {default: 1kW}\n    sensors:", r":9: models\[Mine-1\].module: 'min' is missing"),
        ("min: 100W", "min: 100W, source: me", r":5: .*limit.source: no source 'me' \(allowed: estimate \(why\)\)"),
        ("min: 100W", "min: 100W, source: {max: estimate}", r":5: .*limit.source.max: no source 'estimate'"),
        ("min: 100W", "min: 100W, source: {mix: me}", r":5: .*limit.source.mix: unknown key"),
        ("models:", "sources: {me: {title: T}}\nmodels:", r":1: sources\[me\]: 'by' is missing"),
        ("models:", "sources: [me]\nmodels:", r":1: sources: must be a mapping"),
        ("models:", "model:", r":1: model: unknown key: did you mean 'models'\?"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, was: str, becomes: str, problem: str) -> None:
    assert was in MINE
    with pytest.raises(ConfigError, match=problem) as refused:
        load_models(write(tmp_path, MINE.replace(was, becomes, 1)))
    assert str(refused.value).startswith(f"{tmp_path}/mine.yaml:")


@pytest.mark.parametrize("text", ["", "models:\n", "models: {}\n", "models: [H100]\n", "H100\n"])
def test_a_file_without_models_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="models"):
        load_models(write(tmp_path, text))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = MINE.replace("min: 100W", "min: 400W").replace("30s", "never").replace("brand: nvidia", "brand: amd")
    with pytest.raises(ConfigError) as refused:
        load_models(write(tmp_path, text))
    assert [problem.line for problem in refused.value.problems] == [4, 5, 8]


def test_sources_may_be_named_in_a_file_of_ones_own(tmp_path: Path) -> None:
    sources = "sources: {meter: {title: My meter, by: me, at: https://example.org}}\n"
    text = MINE.replace("min: 100W", "min: 100W, source: {max: meter, rest: estimate (a guess)}")
    assert len(load_models(write(tmp_path, sources + text))) == 1


@pytest.mark.parametrize(
    ("text", "gpus", "keys"),
    [
        ("H100", 2, ["H100-SXM5"] * 2),
        ("h100", None, ["H100-SXM5"] * DEFAULT_GPUS),
        ("H100", 0, []),
        ("H100:2,A100:2", None, ["H100-SXM5"] * 2 + ["A100-SXM4-80GB"] * 2),
        ("H100:2, a100", 3, ["H100-SXM5"] * 2 + ["A100-SXM4-80GB"]),
        ("L40S:16", None, ["L40S"] * 16),
    ],
)
def test_a_node_s_models(text: str, gpus: int | None, keys: list[str]) -> None:
    assert [model.key for model in parse_selection(text, gpus)] == keys


def test_a_node_of_ones_own_models(tmp_path: Path) -> None:
    path = write(
        tmp_path, MINE + MINE.replace("models:\n", "").replace("Mine-1", "Mine-2").replace("[mine, own]", "m2")
    )
    assert [model.key for model in parse_selection(str(path), None)] == ["Mine-1", "Mine-2"]
    assert [model.key for model in parse_selection(f"{path}:2,V100:1", 5)] == [
        *("Mine-1", "Mine-1", "Mine-2", "Mine-2"),
        "V100-SXM2",
    ]
    assert len(parse_selection(str(write(tmp_path, MINE)), 3)) == 3
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        parse_selection(str(tmp_path / "none.yaml"), None)


@pytest.mark.parametrize(
    ("text", "gpus", "message"),
    [
        ("H9000", None, "no model 'H9000' .allowed: H100-SXM5/H100, H100-PCIe, .* or the path of a YAML file"),
        ("", None, "no model ''"),
        ("H100,", None, "no model ''"),
        ("H100:2,A100:2", 3, "'H100:2,A100:2' is 4 GPUs, not 3"),
        ("H100:0", None, "'0' is not a number of GPUs .allowed: 1 to 16"),
        ("H100:two", None, "'two' is not a number of GPUs"),
        ("H100:²", None, "is not a number of GPUs"),
        ("H100:9,A100:8", None, "0 to 16"),
        ("H100", 17, "0 to 16"),
        ("H100:9999", None, "0 to 16"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(text: str, gpus: int | None, message: str) -> None:
    with pytest.raises(SimulatorError, match=message):
        parse_selection(text, gpus)


def test_nothing_is_read_before_someone_asks() -> None:
    code = "import sys, wattkeeper.simulator.models; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
