"""The metrics page. WATTKEEPER_UPDATE_GOLDEN=1 writes the golden one anew."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests import snapshots

from wattkeeper.exporters.prometheus import FAMILIES, PREFIX, TEXTFILE, Exporter, JobLabels
from wattkeeper.exporters.scrapers import FORGOTTEN_S, MOST_CLIENTS, YOUNG_S, Scrapers
from wattkeeper.snapshot import AccountView, Snapshot
from wattkeeper.units import Millijoules

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
    second = snapshots.charged(snapshots.job(7, 0, run="r1"), {0: 42_000})
    second = replace(second, started_at=snapshots.NOW - 40)
    samples = read(render(replace(snapshots.snapshot(), jobs=(first, second)[::order])))
    assert one(samples, "job_gpu_energy_joules_total", slurm_job_id="7", gpu="0") == 42


def test_of_two_clusters_jobs_of_one_id_the_later_one_is_shown() -> None:
    first = replace(snapshots.job(7, 0), started_at=snapshots.NOW - 100)
    second = replace(snapshots.charged(snapshots.job(7, 1), {1: 42_000}), started_at=snapshots.NOW - 40)
    second = replace(second, facts=replace(second.facts, key=replace(second.key, cluster="other")))
    samples = read(render(replace(snapshots.snapshot(), jobs=(second, first))))
    assert one(samples, "job_info", slurm_job_id="7") == 1
    assert one(samples, "job_gpu_energy_joules_total", slurm_job_id="7") == 42


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


class Shown:
    """An agent whose snapshots tests make: one account and one job, born at ``BORN``."""

    BORN = snapshots.NOW_MONO

    def __init__(self, born_mono: float | None = BORN, base_mj: int = 0) -> None:
        self.born_mono, self.base_mj = born_mono, base_mj
        self.snapshot = replace(snapshots.snapshot(), jobs=(), accounts={})
        self.exporter = Exporter(lambda: self.snapshot, "id", lambda: self.snapshot.at_mono)

    def now(self, after_s: float, energy_mj: int | None = None) -> None:
        """So long after ``BORN``; with a job that has used so much, or none."""
        self.snapshot = replace(self.snapshot, at_mono=self.BORN + after_s)
        if energy_mj is not None:
            job = snapshots.charged(snapshots.job(7, 0), {0: energy_mj})
            view = AccountView(Millijoules(self.base_mj + energy_mj), Millijoules(self.base_mj), self.born_mono)
            jobs = (replace(job, born_mono=self.born_mono),)
            self.snapshot = replace(self.snapshot, jobs=jobs, accounts={("ml", "gpu"): view})

    def scrape(self, client: str) -> tuple[float | None, float | None]:
        """Joules of the account and of the job as that client sees them; None where there are none."""
        samples = read(self.exporter.render(client)[0].decode())
        account = of(samples, "account_energy_joules_total", account="ml", partition="gpu", domain="gpu")
        job = of(samples, "job_gpu_energy_joules_total", slurm_job_id="7", gpu="0")
        return next(iter(account.values()), None), next(iter(job.values()), None)


def test_two_prometheis_see_a_job_shorter_than_a_scrape_begin_at_0_each_for_itself() -> None:
    agent = Shown()
    agent.now(-5)
    assert agent.scrape("one") == agent.scrape("two") == (None, None)
    agent.now(10, 500)
    assert agent.scrape("one") == (0, 0)
    agent.now(11, 500)
    assert agent.scrape("two") == (0, 0)
    agent.now(25, 500)
    assert agent.scrape("one") == agent.scrape("two") == (0.5, 0.5)


def test_whoever_saw_it_begin_is_never_shown_less_again() -> None:
    agent = Shown()
    agent.now(-5)
    agent.scrape("one")
    for second, energy in ((1, 100), (1, 100), (2, 200), (400, 900)):
        agent.now(second, energy)
        agent.scrape(f"passer-by {second}")
        shown = agent.scrape("one")
    assert shown == (0.9, 0.9)


def test_a_client_never_seen_is_shown_the_beginning_of_what_is_young_alone() -> None:
    agent = Shown()
    agent.now(60, 500)
    assert agent.scrape("new") == (0, 0)
    agent.now(75, 500)
    assert agent.scrape("new") == (0.5, 0.5)
    agent.now(3_600, 900)
    assert agent.scrape("much later") == (0.9, 0.9)


def test_what_an_agent_before_this_one_knew_is_shown_as_it_is() -> None:
    agent = Shown(born_mono=None)
    agent.now(1, 500)
    assert agent.scrape("one") == (0.5, 0.5)


def test_an_account_that_comes_back_begins_where_it_was() -> None:
    agent = Shown(base_mj=8_000)
    agent.now(-5)
    agent.scrape("one")
    agent.now(1, 500)
    assert agent.scrape("one") == (8, 0)
    agent.now(2, 500)
    assert agent.scrape("one") == (8.5, 0.5)


def test_a_file_shows_the_beginning_for_a_minute() -> None:
    agent = Shown()
    for second, seen in ((1, 0), (5, 0), (59, 0), (61, 0.5)):
        agent.now(second, 500)
        assert agent.scrape(TEXTFILE) == (seen, seen)


def test_a_crowd_of_strangers_does_not_make_the_agent_forget_prometheus() -> None:
    agent = Shown()
    for second in (-30, -15):
        agent.now(second)
        agent.scrape("prometheus")
    for number in range(100):
        agent.scrape(f"stranger {number}")
    agent.now(1, 500)
    assert agent.scrape("prometheus") == (0, 0)
    for number in range(100):
        agent.scrape(f"stranger {number}")
    agent.now(2, 500)
    assert agent.scrape("prometheus") == (0.5, 0.5)


def test_a_client_that_is_gone_makes_room() -> None:
    scrapers = Scrapers()
    for visit in range(50):
        scrapers.visit("the old version", visit)
    for number in range(MOST_CLIENTS - 1):
        scrapers.visit(f"other {number}", 100.0)
        scrapers.visit(f"other {number}", FORGOTTEN_S + 200.0)
    now = FORGOTTEN_S + 300.0
    scrapers.visit("the new version", now)
    assert scrapers.visit("other 0", now) == FORGOTTEN_S + 200.0
    assert scrapers.visit("the old version", now) == now - YOUNG_S


def test_a_running_job_has_a_counter_before_its_first_charge_unless_there_is_nothing_to_charge() -> None:
    waiting = replace(snapshots.job(7, 0, 3), usage={})
    page = read(render(replace(snapshots.snapshot(), jobs=(waiting,))))
    assert {dict(key)["gpu"] for key in of(page, "job_gpu_energy_joules_total", slurm_job_id="7")} == {"0"}
    gone = replace(waiting, ended_at=snapshots.NOW)
    assert not of(read(render(replace(snapshots.snapshot(), jobs=(gone,)))), "job_gpu_energy_joules_total")


@pytest.mark.parametrize(
    ("job_labels", "stranger", "known"),
    [(None, "id", "full"), ("id", "id", "id"), ("full", "full", "full"), ("none", "none", "none")],
)
def test_without_a_setting_names_are_for_those_who_have_shown_who_they_are(
    job_labels: JobLabels | None, stranger: JobLabels, known: JobLabels
) -> None:
    snapshot = snapshots.snapshot()
    exporter = Exporter(lambda: snapshot, job_labels, lambda: snapshots.NOW_MONO)
    for authenticated, shown in ((False, stranger), (True, known)):
        page, _ = exporter.render(f"prometheus {authenticated}", authenticated)
        assert page.decode() == render(snapshot, shown)


@pytest.mark.parametrize("job_labels", ["full", "id", "none"])
def test_accounts_are_billed_whatever_jobs_show(job_labels: JobLabels) -> None:
    samples = read(render(snapshots.snapshot(), job_labels))
    assert (
        one(samples, "account_energy_joules_total", account="ml-vision", partition="gpu", domain="gpu") == 86400000.123
    )
    assert one(samples, "energy_gaps_total", gpu="1", cause="outage") == 2


def test_accounts_whose_names_print_alike_are_one_label_set() -> None:
    long = "a" * 5_000
    accounts = {(long, ""): AccountView(Millijoules(1_000)), (f"{long}b", ""): AccountView(Millijoules(2_000))}
    samples = read(render(replace(snapshots.snapshot(), accounts=accounts)))
    assert list(of(samples, "account_energy_joules_total").values()) == [3]
