"""The agent's settings: defaults, values, and the file that is shipped."""

from pathlib import Path

import pytest
from tests import yaml12

from wattkeeper.config.settings import Listen, Settings, UnixListen, load_settings, parse_settings
from wattkeeper.config.settings_shape import SETTINGS
from wattkeeper.config.shapes import Shape
from wattkeeper.errors import ConfigError
from wattkeeper.system.trust import TO_READ

SHIPPED = Path(__file__).parent.parent.parent / "policies" / "wattkeeper.yaml.example"


def parse(text: str) -> Settings:
    return parse_settings("s.yaml", text)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "gpus: {}\nmetrics: {}\nslurm: {}", "node: null"])
def test_what_is_left_out_has_its_default(text: str) -> None:
    assert parse(text) == Settings()


def test_the_shipped_file_says_the_defaults() -> None:
    assert load_settings(SHIPPED, TO_READ) == Settings()


def test_the_shipped_file_has_every_setting() -> None:
    shipped = yaml12.load(SHIPPED.read_text(encoding="utf-8"))
    assert sorted(shipped) == sorted(SETTINGS.names)
    for name, key in SETTINGS.keys.items():
        if isinstance(key.kind, Shape):
            assert sorted(shipped[name]) == sorted(key.kind.names), name


def test_defaults() -> None:
    settings = Settings()
    assert (settings.mode, settings.interval, settings.node) == ("enforce", 5.0, None)
    assert settings.metrics.listen == Listen("127.0.0.1", 9745)
    assert settings.metrics.grace == 300.0
    assert settings.slurm.event_users == ("root",)
    assert settings.gpus.baseline == "found"
    assert settings.ledger.keep == 400 * 86_400


def test_reads_every_setting() -> None:
    settings = parse(
        """
        mode: observe
        node: gpu-07
        interval: 500ms
        run_dir: /tmp/run
        state_dir: /tmp/state
        policies: /tmp/policies.yaml
        gpus:
          library: /opt/libnvidia-ml.so.1
          include: [0, 1, GPU-1c2d3e4f-0000-0000-0000-000000000000]
          exclude: 3
          map: {0: 4, 1: GPU-a}
          baseline: {"*A100*": 0.3kW, "*": 250W}
          exceed_baseline: true
        metrics: {listen: "[::1]:80", textfile: /tmp/x.prom, job_labels: full, grace: 0s}
        slurm: {lookup: off, conf: /etc/slurm.conf, bin_dir: /opt/bin, timeout: 1s, event_users: slurm, strict: fail}
        ledger: {keep: 90d}
        drift: yield
        on_stop: keep
        """
    )
    assert settings.mode == "observe"
    assert settings.node == "gpu-07"
    assert settings.interval == 0.5
    assert settings.policies == Path("/tmp/policies.yaml")
    assert settings.gpus.include == (0, 1, "GPU-1c2d3e4f-0000-0000-0000-000000000000")
    assert settings.gpus.exclude == (3,)
    assert settings.gpus.map == ((0, 4), (1, "GPU-a"))
    assert settings.gpus.baseline == (("*A100*", 300_000), ("*", 250_000))
    assert settings.gpus.exceed_baseline
    assert settings.metrics.listen == Listen("::1", 80)
    assert settings.metrics.grace == 0.0
    assert settings.slurm.lookup == "off"
    assert settings.slurm.event_users == ("slurm",)
    assert settings.slurm.strict == "fail"
    assert settings.ledger.keep == 90 * 86_400
    assert (settings.drift, settings.on_stop) == ("yield", "keep")


def test_a_list_maps_gres_indices_in_its_order() -> None:
    assert parse("gpus: {map: [4, 5, GPU-x]}").gpus.map == ((0, 4), (1, 5), (2, "GPU-x"))


def test_null_closes_the_port() -> None:
    assert parse("metrics: {listen: null}").metrics.listen is None
    assert parse("metrics: {job_labels: null, web_config: null}") == Settings()
    assert parse("gpus: {include: null, map: null}") == Settings()


def test_metrics_may_be_on_a_unix_socket() -> None:
    metrics = parse("metrics: {listen: unix:/run/wattkeeper/m.sock, web_config: /etc/wattkeeper/web.yaml}").metrics
    assert metrics.listen == UnixListen(Path("/run/wattkeeper/m.sock"))
    assert metrics.web_config == Path("/etc/wattkeeper/web.yaml")
    assert metrics.job_labels is None


@pytest.mark.parametrize(
    "listen",
    ["unix:", "unix:m.sock", "unix:/" + "x" * 107, "9745", "127.0.0.1", "a b:1", "x:99999", ":1", "[::1:9", "x:"],
)
def test_refuses_what_is_no_address(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"s\.yaml:1: metrics\.listen: "):
        parse(f'metrics: {{listen: "{listen}"}}')


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"wattkeeper\.yaml: cannot be read: No such file"):
        load_settings(tmp_path / "wattkeeper.yaml")


@pytest.mark.parametrize("keep", ["0d", "12h", "400", "forever", "100000d", "null", "-1d"])
def test_refuses_to_keep_the_ledger_for_what_is_no_time(keep: str) -> None:
    with pytest.raises(ConfigError, match=r"s\.yaml:2: ledger\.keep: .*allowed: 1d to 36500d, such as 400d"):
        parse(f"ledger:\n  keep: {keep}")


def test_says_which_key_the_ledger_has() -> None:
    with pytest.raises(ConfigError, match=r"ledger\.keeps: unknown key: did you mean 'keep'\? \(allowed: keep\)"):
        parse("ledger: {keeps: 400d}")


def test_settings_that_others_can_change_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "wattkeeper.yaml"
    file.write_text("mode: observe\n")
    file.chmod(0o666)
    with pytest.raises(
        ConfigError, match=rf"^{file}: lets its group .* and everybody write to it .*: chmod go-w {file}$"
    ):
        load_settings(file)
