"""The metrics page. WATTKEEPER_UPDATE_GOLDEN=1 writes the golden one anew."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests import snapshots

from wattkeeper.exporters.prometheus import FAMILIES, PREFIX, Exporter, JobLabels
from wattkeeper.snapshot import Snapshot

GOLDEN = Path(__file__).parent.parent / "golden" / "metrics.txt"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def render(snapshot: Snapshot, job_labels: JobLabels = "full", mono: float = snapshots.NOW_MONO) -> str:
    page, content_type = Exporter(lambda: snapshot, job_labels, lambda: mono).render("prometheus")
    assert content_type.startswith("text/plain")
    return page.decode()


def read(page: str) -> Samples:
    """Every sample; two with the same name and labels are an error."""
    found: Samples = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name = sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())
            assert name not in found
            found[name] = sample.value
    return found


def of(samples: Samples, name: str, **labels: str) -> dict[frozenset[tuple[str, str]], float]:
    """The samples of one name that have these labels."""
    wanted = set(labels.items())
    return {key[1]: value for key, value in samples.items() if key[0] == name and wanted <= key[1]}


def one(samples: Samples, name: str, **labels: str) -> float:
    (value,) = of(samples, name, **labels).values()
    return value


def test_the_page_is_the_golden_one() -> None:
    page = render(snapshots.snapshot())
    if os.environ.get("WATTKEEPER_UPDATE_GOLDEN"):
        GOLDEN.write_text(page)
    assert page == GOLDEN.read_text()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="not installed on this machine: promtool")
@pytest.mark.parametrize("job_labels", ["full", "id", "none"])
def test_promtool_finds_nothing_to_say(job_labels: JobLabels) -> None:
    page = render(snapshots.snapshot(), job_labels)
    command = [shutil.which("promtool") or "", "check", "metrics"]
    told = subprocess.run(command, input=page, capture_output=True, text=True)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_every_family_is_on_the_page_and_every_label_in_its_place() -> None:
    page = render(snapshots.snapshot())
    for family in FAMILIES:
        assert f"# TYPE {PREFIX}{family.name} {family.kind}\n" in page
        suffix = "_count" if family.kind == "histogram" else ""
        labels = {frozenset(name for name, _ in key) for key in of(read(page), family.name + suffix)}
        assert labels == {frozenset(family.labels)}


def test_a_reading_is_shown_until_it_is_three_intervals_old() -> None:
    gpu = snapshots.gpu(0, reading=snapshots.reading(age_s=0))
    snapshot = replace(snapshots.snapshot(), gpus=(gpu,), interval_s=5.0)
    assert one(read(render(snapshot, mono=snapshots.NOW_MONO + 15)), "gpu_power_watts") == 187.654
    late = read(render(snapshot, mono=snapshots.NOW_MONO + 15.1))
    of_reading = ["power_watts", "energy_joules_total", "temperature_celsius", "utilization_ratio"]
    of_reading += ["power_capped_seconds_total", "power_limit_watts", "power_limit_enforced_watts"]
    for name in of_reading:
        assert of(late, f"gpu_{name}") == {}
    assert one(late, "gpu_power_limit_target_watts") == 250
    assert one(late, "gpu_idle_energy_joules_total") == 0


def test_with_a_short_interval_a_reading_still_has_three_seconds() -> None:
    gpu = snapshots.gpu(0, reading=snapshots.reading(age_s=0))
    snapshot = replace(snapshots.snapshot(), gpus=(gpu,), interval_s=0.1)
    assert of(read(render(snapshot, mono=snapshots.NOW_MONO + 2.9)), "gpu_power_watts")
    assert not of(read(render(snapshot, mono=snapshots.NOW_MONO + 3.1)), "gpu_power_watts")


def test_what_is_absent_is_left_out() -> None:
    samples = read(render(snapshots.snapshot()))
    assert of(samples, "gpu_energy_joules_total", gpu="1") == {}
    assert one(samples, "gpu_power_watts", gpu="1") == 187.654
    for name in ("gpu_power_watts", "gpu_power_limit_target_watts", "gpu_power_limit_baseline_watts"):
        assert of(samples, name, gpu="3") == {}
    assert one(samples, "gpu_power_limit_max_watts", gpu="3") == 700


def test_users_and_accounts_only_with_full_labels() -> None:
    labels = {"user": "alice", "account": "ml-vision"}
    assert of(read(render(snapshots.snapshot(), "full")), "job_info", slurm_job_id="7", **labels)
    page = render(replace(snapshots.snapshot(), accounts={}), "id")
    assert of(read(page), "job_info", slurm_job_id="7", user="", account="", partition="gpu", qos="normal")
    assert "alice" not in page
    assert "ml-vision" not in page


def test_no_job_has_a_series_with_no_labels() -> None:
    samples = read(render(snapshots.snapshot(), "none"))
    assert not [key for key in samples if "slurm_job_id" in dict(key[1])]
    assert one(samples, "gpu_idle_energy_joules_total", gpu="0") == 5


def test_a_shared_gpu_has_the_energy_of_each_job() -> None:
    samples = read(render(snapshots.snapshot()))
    jobs = {dict(key)["slurm_job_id"] for key in of(samples, "job_gpu_energy_joules_total", gpu="1")}
    assert jobs == {"7", "8", "9"}
    assert one(samples, "job_gpu_energy_joules_total", slurm_job_id="7", gpu="1") == 1000.501


def test_a_finished_job_keeps_its_energy_and_loses_its_cap() -> None:
    samples = read(render(snapshots.snapshot()))
    assert of(samples, "job_gpu_energy_joules_total", slurm_job_id="9")
    assert of(samples, "job_info", slurm_job_id="9")
    assert not of(samples, "job_gpu_power_cap_watts", slurm_job_id="9")


@pytest.mark.parametrize("order", [1, -1])
def test_of_a_requeued_job_the_latest_run_is_shown(order: int) -> None:
    first = replace(snapshots.job(7, 0, ended_at=snapshots.NOW - 50), started_at=snapshots.NOW - 100)
    usage = {snapshots.uuid(0): snapshots.used(42_000)}
    second = replace(snapshots.job(7, 0, run="r1"), started_at=snapshots.NOW - 40, usage=usage)
    samples = read(render(replace(snapshots.snapshot(), jobs=(first, second)[::order])))
    assert one(samples, "job_gpu_energy_joules_total", slurm_job_id="7", gpu="0") == 42


def test_counters_with_known_labels_start_at_zero() -> None:
    empty = Snapshot(snapshots.NOW, snapshots.NOW_MONO, "n", "c", "observe", "0", 5.0)
    samples = read(render(empty))
    assert {dict(key)["outcome"] for key in of(samples, "requests_total")} == {
        "none",
        "granted",
        "clamped",
        "denied",
        "malformed",
    }
    assert one(samples, "hook_events_total", event="prolog", outcome="applied") == 0
    assert one(samples, "hook_events_total", event="epilog", outcome="applied") == 0
    assert one(samples, "agent_info", mode="observe") == 1
    assert not of(samples, "policy_info")
    assert not of(samples, "policy_last_reload_success_timestamp_seconds")


def test_a_histogram_ends_in_all() -> None:
    samples = read(render(snapshots.snapshot()))
    assert one(samples, "cap_apply_seconds_bucket", event="prolog", le="0.025") == 1
    assert one(samples, "cap_apply_seconds_bucket", event="prolog", le="+Inf") == 3
    assert one(samples, "cap_apply_seconds_count", event="prolog") == 3
    assert one(samples, "cap_apply_seconds_sum", event="prolog") == 0.1875


@pytest.mark.parametrize("name", ["\n", '"', "\\", "\udcff", "\u202e", "x" * 5000, "}\nwattkeeper_forged 1\n"])
def test_no_name_breaks_the_page(name: str) -> None:
    jobs = (snapshots.job(7, 0, user=name, account=name, partition=name, qos=name),)
    samples = read(render(replace(snapshots.snapshot(), jobs=jobs)))
    assert len(of(samples, "job_info")) == 1
    assert not of(samples, "forged")


def test_the_present_snapshot_is_shown_at_each_scrape() -> None:
    shown = [replace(snapshots.snapshot(), mode="enforce"), replace(snapshots.snapshot(), mode="observe")]
    exporter = Exporter(lambda: shown.pop(0), "id", lambda: snapshots.NOW_MONO)
    pages = [exporter.render("prometheus")[0].decode() for _ in range(2)]
    assert of(read(pages[0]), "agent_info", mode="enforce")
    assert of(read(pages[1]), "agent_info", mode="observe")
