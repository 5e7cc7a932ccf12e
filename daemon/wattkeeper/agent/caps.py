"""What came of the decisions about a job: what is set on its GPUs, and where that is not what was decided, why."""

from wattkeeper.agent.state import Gpu, Job, State
from wattkeeper.model import GpuUuid
from wattkeeper.snapshot import CapView


def cap_of(state: State, job: Job, uuid: GpuUuid) -> CapView:
    """What became of what was decided for a job on one of its GPUs; of a job that has ended, as it last was."""
    gpu, decision = state.gpus[uuid], job.decisions[uuid]
    decided_mw, set_mw = decision.limit_mw, job.caps_mw.get(uuid)
    last = job.last_view.caps.get(uuid) if job.last_view is not None else None
    if job.ended_at is not None:
        observed = last.observed if last is not None else decision.observe
    else:
        observed = gpu.target.observe if gpu.target is not None else decision.observe
    trouble = None
    if not (decided_mw is None or observed or set_mw == decided_mw):
        if job.ended_at is None:
            trouble = _trouble(gpu)
        elif last is not None:
            trouble = last.trouble
    cap = decided_mw, set_mw, observed, trouble
    if last is not None and cap == (last.decided_mw, last.set_mw, last.observed, last.trouble):
        return last  # at every tick of most jobs' lives: what is the same need not be made
    return CapView(*cap)


def _trouble(gpu: Gpu) -> str:
    """Why the limit of a GPU is not, or not yet, what it is to be."""
    error = gpu.read_error or gpu.error
    if gpu.hold is not None:
        return "an administrator holds it"
    if gpu.drift.yielded:
        return "another program sets its limit"
    if error is not None:
        return error
    if gpu.reading is not None and gpu.reading.requested_mw is None:
        return "the card does not tell its limit"
    return "not set yet"
