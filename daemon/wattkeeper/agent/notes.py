"""What the ledger is to remember of a job beside its energy."""

from wattkeeper.agent.state import Job, State
from wattkeeper.core.holdings import Moment, Transition
from wattkeeper.model import Outcome
from wattkeeper.protocols import GpuNote, JobNote


def note_of(state: State, job: Job, ended_at: float | None = None) -> JobNote:
    """What is known of a run of a job by now. What was asked, and what became of it, is its first decision's."""
    first = next(iter(job.decisions.values()), None)
    return JobNote(
        facts=job.facts,
        started_at=job.started_at,
        ended_at=job.ended_at if ended_at is None else ended_at,
        asked=first.asked if first else None,
        outcome=first.outcome if first else Outcome.NONE,
        rule=first.rule if first else None,
        gpus={
            uuid: GpuNote(state.gpus[uuid].info.minor, state.gpus[uuid].info.model, job.caps_mw.get(uuid))
            for uuid in job.gpus
            if uuid in state.gpus
        },
    )


def notes_of(state: State, transition: Transition, moment: Moment) -> tuple[JobNote, ...]:
    """The notes that belong into a transition's transaction: of the runs that it ends, and of the one that begins."""
    ended = (state.jobs[key] for key in transition.over if key in state.jobs)
    notes = [note_of(state, job, job.end_at(moment.at)) for job in ended]
    if transition.added:
        facts, gpus = transition.added[0].job, tuple(holding.gpu for holding in transition.added)
        known = state.jobs.get(facts.key)
        begun = Job(facts, gpus, moment.at if known is None else known.started_at)
        if known is not None:
            begun.decisions, begun.caps_mw = known.decisions, known.caps_mw
        notes.append(note_of(state, begun))
    return tuple(notes)


def take_changed(state: State) -> tuple[JobNote, ...]:
    """Notes of the jobs that have been decided on anew since the last call."""
    if not state.unnoted:
        return ()
    jobs = (state.jobs.get(key) for key in state.unnoted)
    notes = tuple(note_of(state, job) for job in jobs if job is not None)
    state.unnoted.clear()
    return notes
