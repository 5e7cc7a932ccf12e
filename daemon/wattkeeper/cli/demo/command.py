"""The command: brings the stage up, plays the jobs, tells what came of them."""

import asyncio
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from shutil import which
from typing import Any

import click

from wattkeeper.cli import HELP
from wattkeeper.cli.demo.jobs import JOBS, ExampleJob
from wattkeeper.cli.demo.show import LiveShow, PlainShow, Show
from wattkeeper.cli.demo.stage import GPUS, Stage
from wattkeeper.cli.output import Column, alike, energy, gpu_names, print_json, shown, watts
from wattkeeper.cli.status import job_energy
from wattkeeper.errors import AgentUnreachableError
from wattkeeper.system.clock import SystemClock
from wattkeeper.units import Milliwatts, format_power

_COLUMNS = (
    Column("job", right=True),
    Column("user"),
    Column("GPUs"),
    Column("asked"),
    Column("got"),
    Column("energy", right=True),
    Column("why"),
)
_FRAME_S = 0.25
_INTERRUPTED = 130
_BACK_TRIES = 4


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  wattkeeper demo
  wattkeeper demo --seconds 10 | cat       plain lines instead of a live picture
  wattkeeper demo --keep                   then look around: status, explain, metrics, your own NVML client

\b
Everything lives in a temporary folder and is removed at the end, also after Ctrl-C.
Exit code 1: a GPU did not come back to its baseline.""",
)
@click.option("--seconds", type=click.FloatRange(4, 3600), default=30.0, show_default=True, help="How long to play.")
@click.option("--keep", is_flag=True, help="Leave agent and GPUs at the end, and say how to look at them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end; what happens, on stderr.")
@click.option("--no-color", is_flag=True, help="Draw without colours.")
@click.pass_context
def demo(context: click.Context, seconds: float, keep: bool, as_json: bool, no_color: bool) -> None:
    """Watch the real agent cap, meter and give back four simulated H100 for a stream of example jobs.

    Needs no GPU, Slurm, root or network: the agent runs as its own process on simulated GPUs, and the hooks that Slurm
    would call are called with the environment that slurmd would give them.
    """
    show: Show
    plain = as_json or not sys.stdout.isatty()
    show = PlainShow(to_stderr=as_json) if plain else LiveShow(color=not no_color)
    show.say("wattkeeper demo: 4 simulated H100, the real agent, the real hooks; Ctrl-C ends it")
    try:
        status = asyncio.run(_interruptible(show, seconds, keep, as_json))
    finally:
        show.close()
    context.exit(status)


async def _interruptible(show: Show, seconds: float, keep: bool, as_json: bool) -> int:
    """Plays, and cleans up also when told to stop."""
    loop = asyncio.get_running_loop()
    stage = Stage()
    playing = asyncio.ensure_future(_play(stage, show, seconds, as_json))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, playing.cancel)
    finished = False
    try:
        status = await playing
        finished = True
    except asyncio.CancelledError:
        show.close()
        show.say("interrupted: cleaning up")
        return _INTERRUPTED
    except AgentUnreachableError as error:
        raise AgentUnreachableError(f"{error}; {stage.last_words()}") from None
    finally:
        if finished and keep:
            _say_how_to_look(stage, show)
        else:
            await stage.stop()
    return status


async def _play(stage: Stage, show: Show, seconds: float, as_json: bool) -> int:
    clock = SystemClock()
    show.say("starting the agent …")
    await stage.start()
    before = await stage.limits_mw()
    show.say(f"agent ready (pid {stage.child.pid if stage.child else '?'}); jobs are coming")
    start = clock.mono()
    events = sorted([(job.start, "start", job) for job in JOBS] + [(job.end, "end", job) for job in JOBS], key=_when)
    for share, what, job in events:
        while (left := start + share * seconds - clock.mono()) > 0:
            show.update(stage.status())
            await clock.sleep(min(_FRAME_S, left))
        stamp = f"{clock.mono() - start:5.1f} s "
        await (_begin if what == "start" else _end)(stage, show, job, stamp)
    show.update(stage.status())
    after = await _back(stage, before, clock)
    answers = [stage.job(job.job_id) for job in JOBS]
    show.close()
    return _tell(show, answers, before, after, as_json)


def _when(event: tuple[float, str, ExampleJob]) -> tuple[float, str]:
    return event[0], event[1]


async def _begin(stage: Stage, show: Show, job: ExampleJob, stamp: str) -> None:
    """The Prolog, then the job's work: in that order, as slurmd does it."""
    done = await stage.hook("prolog", job)
    stage.load(job, job.load)
    who = f"{job.user}, account {job.account}, partition {job.partition}"
    show.say(f"{stamp}job {job.job_id} starts on {gpu_names(job.gpus)}: {job.tale} ({who}, comment '{job.comment}')")
    show.say(f"         {stage.job(job.job_id)['message']}")
    _complain(show, done.complaint)


async def _end(stage: Stage, show: Show, job: ExampleJob, stamp: str) -> None:
    stage.load(job, 0)
    if not job.epilog:
        show.say(f"{stamp}job {job.job_id} ends, and its Epilog never runs: its GPU still has its cap")
        return
    done = await stage.hook("epilog", job)
    show.say(f"{stamp}job {job.job_id} ends: used {energy(job_energy(stage.job(job.job_id)))}, its GPUs are given back")
    _complain(show, done.complaint)


def _complain(show: Show, complaint: str) -> None:
    if complaint:
        show.say(f"         hook: {shown(complaint)}")


async def _back(stage: Stage, before: Mapping[int, int], clock: SystemClock) -> Mapping[int, int]:
    """The limits at the end. A GPU whose Epilog was answered late is given a few ticks."""
    after = await stage.limits_mw()
    for _ in range(_BACK_TRIES):
        if after == before:
            break
        await clock.sleep(1.0)
        after = await stage.limits_mw()
    return after


def _tell(
    show: Show, answers: list[Mapping[str, Any]], before: Mapping[int, int], after: Mapping[int, int], as_json: bool
) -> int:
    astray = {minor: limit for minor, limit in after.items() if limit != before.get(minor)}
    ok = not astray and len(after) == GPUS
    if as_json:
        limits = [{"gpu": gpu, "baseline_w": before[gpu] / 1000, "limit_w": after[gpu] / 1000} for gpu in sorted(after)]
        print_json({"ok": ok, "jobs": answers, "gpus": limits})
        return 0 if ok else 1
    show.say("")
    show.table(_COLUMNS, [_row(answer) for answer in answers])
    show.say("")
    if ok:
        limits_text = format_power(Milliwatts(min(after.values())))
        show.say(
            f"Read by an NVML client in its own process: all {GPUS} GPUs are back at their baseline, {limits_text}."
        )
    for minor, limit in astray.items():
        show.say(f"GPU {minor} is NOT back at its baseline: it has {format_power(Milliwatts(limit))}")
    return 0 if ok else 1


def _row(answer: Mapping[str, Any]) -> list[str]:
    group = alike(answer["gpus"])[0]
    cap = watts(group.gpu["cap_w"])
    return [
        str(answer["job_id"]),
        shown(answer["user"]),
        ",".join(str(gpu["gpu"]) for gpu in answer["gpus"]),
        shown(answer["asked"]),
        f"{cap} each" if len(group.minors) > 1 else cap,
        energy(job_energy(answer)),
        _why(group.gpu["steps"], str(answer["outcome"])),
    ]


def _why(steps: list[Mapping[str, Any]], outcome: str) -> str:
    """The step that decided: the request's answer where one was made, else the rule; and a ceiling that binds."""
    texts = {step["kind"]: shown(step["text"]) for step in steps}
    parts = [texts.get("rule" if outcome == "none" else "request", "")]
    if texts.get("ceiling", "").endswith("binds"):
        parts.append(f"ceiling {texts['ceiling']}")
    return "; ".join(parts)


def _say_how_to_look(stage: Stage, show: Show) -> None:
    pid = stage.child.pid if stage.child else 0
    me = "wattkeeper" if which("wattkeeper") else str(Path(sys.argv[0]).absolute())
    show.close()
    for line in (
        "",
        "The agent goes on. Look at it:",
        f"  {me} status --run-dir {stage.run_dir}",
        f"  {me} explain 105 --run-dir {stage.run_dir}",
        f"  curl -s http://127.0.0.1:{stage.port}/metrics",
        f'  eval "$({me} sim env --state {stage.gpus_dir})"    # then any NVML client sees the GPUs',
        f"  less {stage.root}/agent.log {stage.root}/policy.yaml",
        "Stop it:",
        f"  kill {pid} && rm -r {stage.root}",
    ):
        show.say(line)
