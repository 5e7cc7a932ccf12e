"""Whatever happens on a node, what its agent charges is what the counters showed: per GPU, to the millijoule."""

from collections.abc import Callable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.one_node import AtLast, AtOnce, OneNode, gpu

from wattkeeper.model import GpuUuid, Sharing
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
        self.node.tick()

    def shown_mj(self, uuid: GpuUuid) -> int:
        """A counter that reads less than before began anew: all that it shows came since."""
        marks = (mark for change in self.node.changes for mark in change.watermarks if mark.sample.gpu == uuid)
        readings = [mark.sample.energy_mj for mark in marks]
        return sum(now - before if now >= before else now for before, now in pairwise(readings))

    def check_sums(self) -> None:
        """The ledger's sums are the counters'."""
        kept = self.node.store.load()
        for uuid in (A, B):
            jobs = sum(usage.energy_mj for (_, gpu_of), usage in kept.usage.items() if gpu_of == uuid)
            assert jobs + kept.idle_mj.get(uuid, 0) + kept.unattributed_mj.get(uuid, 0) == self.shown_mj(uuid)

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
        shown = {account: view.energy_mj for account, view in self.node.snapshot().accounts.items()}
        assert shown == kept.accounts_mj
        assert sum(shown.values()) == sum(usage.energy_mj for usage in kept.usage.values())


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
    story.mend()
    story.node.tick()
    story.node.prolog(9, "0,1")
    story.check()
