"""Whatever happens on a node, what its agent charges is what the counters showed: per GPU, to the millijoule."""

from collections.abc import Callable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.one_node import AtLast, AtOnce, OneNode, gpu

from wattkeeper.model import EnergySample, GpuUuid, Sharing
from wattkeeper.slurm.gres import GresGpu
from wattkeeper.slurm.hook_event import EventKind

GRES = (
    GresGpu(0, "/dev/nvidia0", Sharing.WHOLE),
    GresGpu(1, "/dev/nvidia1", Sharing.SHARED),
)
A, B = GpuUuid("GPU-0"), GpuUuid("GPU-1")
PLAUSIBLE_MJ = 2 * 700_000


class Story:
    """A node, and what its counters have shown between the readings that the ledger knows."""

    def __init__(self, writer: type[AtOnce] = AtOnce) -> None:
        self.node = OneNode(gpu(0), gpu(1), gres=GRES, writer=writer)
        self.totals: dict[object, int] = {}
        self.node.tick()

    def shown_mj(self, uuid: GpuUuid) -> int:
        """A counter that reads less than before began anew: all that it shows came since."""
        marks = [mark for change in self.node.changes for mark in change.watermarks if mark.sample.gpu == uuid]
        return sum(came_mj(before.sample, now.sample) for before, now in pairwise(marks))

    def check_sums(self) -> None:
        """The ledger's sums are the counters'."""
        kept = self.node.store.load()
        for uuid in (A, B):
            jobs = sum(usage.energy_mj for (_, gpu_of), usage in kept.usage.items() if gpu_of == uuid)
            assert jobs + kept.idle_mj.get(uuid, 0) + kept.unattributed_mj.get(uuid, 0) == self.shown_mj(uuid)

    def check_totals(self) -> None:
        """What counters show never goes back, or whoever scrapes them would count all of it once more."""
        seen = self.node.snapshot()
        totals: dict[object, int] = {account: view.energy_mj for account, view in seen.accounts.items()}
        for view in seen.gpus:
            if view.idle_mj is not None and view.unattributed_mj is not None:
                totals |= {(view.info.uuid, "idle"): view.idle_mj, (view.info.uuid, "nobodys"): view.unattributed_mj}
        totals |= {(job.key, uuid): energy for job in seen.jobs for uuid, energy in job.counted_mj.items()}
        assert {name: total for name, total in totals.items() if total < self.totals.get(name, 0)} == {}
        self.totals |= totals

    def check_whose(self) -> None:
        """An interval within which a GPU's holders changed is nobody's, also where they changed back."""
        held: dict[GpuUuid, set[tuple[object, ...]]] = {A: set(), B: set()}
        marks: dict[GpuUuid, EnergySample] = {}
        changed: set[GpuUuid] = set()
        for change in self.node.changes:
            newer = {mark.sample.gpu: mark.sample for mark in change.watermarks}
            cut = {uuid for uuid, sample in newer.items() if sample != marks.get(uuid)}
            for charge in change.charges:
                if charge.gpu in changed & cut:
                    assert (charge.jobs_mj, charge.idle_mj) == ({}, 0)
            for uuid, holders in held.items():
                before = set(holders)
                holders -= {(h.job.key, h.since_mono) for h in change.removed if h.gpu == uuid}
                holders |= {(h.job.key, h.since_mono) for h in change.added if h.gpu == uuid}
                if holders != before:
                    changed.add(uuid)
            changed -= cut
            marks.update(newer)

    def mend(self) -> None:
        """Every card answers again, and an agent that started without one is restarted."""
        for card in self.node.gpus.gpus.values():
            card.mend()
        if len(self.node.state.gpus) < len(self.node.gpus.gpus):
            self.node.start()

    def check(self) -> None:
        """The ledger's sums are the counters', and the agent's own agree with them."""
        self.check_sums()
        kept = self.node.store.load()
        for uuid in (A, B):
            nobodys = kept.idle_mj.get(uuid, 0), kept.unattributed_mj.get(uuid, 0)
            mine = self.node.state.gpus.get(uuid)
            if mine is None:  # it was lost when the agent started
                continue
            assert (mine.idle_mj, mine.unattributed_mj) == nobodys
            assert mine.watermark == kept.watermarks[uuid]
        for key, job in self.node.state.jobs.items():
            if job.ended_at is None:
                assert job.usage == {uuid: usage for (run, uuid), usage in kept.usage.items() if run == key}
                assert job.counted_mj == {uuid: usage.energy_mj for uuid, usage in job.usage.items()}
        shown = {account: view.energy_mj for account, view in self.node.snapshot().accounts.items()}
        assert shown == kept.accounts_mj
        assert sum(shown.values()) == sum(usage.energy_mj for usage in kept.usage.values())


def came_mj(before: EnergySample, now: EnergySample) -> int:
    """What a counter's two readings say was drawn, at most what a GPU of 700 W can: less came, or garbage."""
    most_mj = int(3 * 700_000 * (now.at_mono - before.at_mono + 1))
    if now.energy_mj < before.energy_mj:
        return now.energy_mj if now.energy_mj <= most_mj else 0
    return min(now.energy_mj - before.energy_mj, most_mj)


Deed = Callable[[Story], object]


def gain(a: int, b: int) -> Deed:
    return lambda story: story.node.go_on(1, GPU_0=a, GPU_1=b)


def start(job: int, gpus: str, account: str) -> Deed:
    return lambda story: story.node.prolog(job, gpus, SLURM_JOB_ACCOUNT=account, SLURM_JOB_RESTART_COUNT=str(job % 2))


def finish(job: int) -> Deed:
    return lambda story: story.node.epilog(job, SLURM_JOB_RESTART_COUNT=str(job % 2))


def spooled(kind: EventKind, job: int, gpus: str, ago_s: float) -> Deed:
    return lambda story: story.node.post(kind, job, {"SLURM_JOB_GPUS": gpus}, story.node.ago(ago_s))


def drained(told: list[tuple[EventKind, int, str]]) -> Deed:
    def tell(story: Story) -> None:
        story.node.go_on(1)
        story.node.drain_at_once([(kind, job, {"SLURM_JOB_GPUS": gpus}) for kind, job, gpus in told])

    return tell


def counter_restarts(uuid: GpuUuid, now_mj: int) -> Deed:
    """The driver was loaded anew; what the counter had gained and nobody read is lost to everybody."""
    return lambda story: story.node.show(uuid, energy_mj=now_mj)


def glitch(uuid: GpuUuid, shown_mj: int) -> Deed:
    """The counter shows something else once, and goes on."""

    def show_once(story: Story) -> None:
        good = story.node.gpus.gpus[uuid].reading.energy_mj
        story.node.show(uuid, energy_mj=shown_mj)
        story.node.go_on(1)
        story.node.tick()
        story.node.show(uuid, energy_mj=good)

    return show_once


def lose(uuid: GpuUuid) -> Deed:
    return lambda story: setattr(story.node.gpus.gpus[uuid], "lost", True)


def find(uuid: GpuUuid) -> Deed:
    return lambda story: story.node.gpus.gpus[uuid].mend()


def restart(story: Story) -> None:
    story.node.start()


def tick(story: Story) -> None:
    story.node.tick()


_jobs, _gpus, _uuids = st.integers(1, 4), st.sampled_from(["0", "1", "0,1"]), st.sampled_from([A, B])
_gains = st.integers(0, PLAUSIBLE_MJ)
_garbage = st.integers(0, 2**59) | st.integers(0, 2 * PLAUSIBLE_MJ)
_deeds = st.lists(
    st.one_of(
        st.builds(gain, _gains, _gains),
        st.builds(gain, _gains, _gains),
        st.just(tick),
        st.just(tick),
        st.builds(start, _jobs, _gpus, st.sampled_from(["a", "b"])),
        st.builds(finish, _jobs),
        st.builds(spooled, st.sampled_from(list(EventKind)), _jobs, _gpus, st.floats(0, 5)),
        st.builds(drained, st.lists(st.tuples(st.sampled_from(list(EventKind)), _jobs, _gpus), max_size=4)),
        st.builds(counter_restarts, _uuids, _gains),
        st.builds(glitch, _uuids, _garbage),
        st.builds(lose, _uuids),
        st.builds(find, _uuids),
        st.just(restart),
    ),
    max_size=30,
)


@given(_deeds)
@settings(max_examples=200)
def test_jobs_and_idle_and_unattributed_are_what_the_counter_showed(deeds: list[Deed]) -> None:
    story = Story()
    for deed in deeds:
        deed(story)
        story.check()
    story.check_whose()
    story.mend()
    story.node.go_on(1)
    story.node.tick()
    story.check()
    for uuid, card in story.node.gpus.gpus.items():
        mark = story.node.state.gpus[uuid].watermark
        assert mark is not None
        assert mark.sample.energy_mj == card.reading.energy_mj


@given(_deeds)
@settings(max_examples=200)
def test_what_waited_for_the_ledger_when_the_agent_was_killed_is_read_from_the_counters_again(
    deeds: list[Deed],
) -> None:
    story = Story(AtLast)
    for deed in deeds:
        deed(story)
        story.check_sums()
        story.check_totals()
    story.mend()
    story.node.tick()
    story.node.prolog(9, "0,1")
    story.check()
    story.check_whose()
