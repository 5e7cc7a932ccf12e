"""What users meet when they submit: the filter in slurmctld and the option of sbatch, salloc and srun."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.walking import BASELINE_W, Gate, by_minor, looks, report, wait_looks
from tests.lab import Lab, LabSpec, Node, NodeSpec, wait_until
from tests.lab.processes import program, run
from tests.lab.spec import REPO

NOBODY = 65534
SHIPPED = REPO / "deploy" / "slurm"
POLICY = """\
version: 1
profiles:
  eco: {cap: 60%}
caps:
  - name: everyone
    cap: 500W
    requests: {min: min, max: 600W}
"""
RULE_W = 500.0
SITE_FILTER = """
local loaded, wattkeeper = pcall(dofile, "%(module)s")
if loaded then
  wattkeeper.profiles = %(profiles)s
  wattkeeper.freeze_comments = true
end
function slurm_job_submit(job_desc, part_list, submit_uid)
  if job_desc.name == "of-the-site" then
    slurm.log_user("the site's own word")
    return slurm.ERROR
  end
  if loaded and not wattkeeper.may_submit(job_desc) then return slurm.ERROR end
  return slurm.SUCCESS
end
function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
  if loaded and not wattkeeper.may_modify(job_desc, job_rec, modify_uid) then return slurm.ESLURM_ACCESS_DENIED end
  return slurm.SUCCESS
end
return slurm.SUCCESS
"""
COMMANDS = {
    "sbatch": ["sbatch", "--output=/dev/null", "--wrap=true"],
    "salloc": ["salloc", "--chdir=/tmp", "true"],
    "srun": ["srun", "--chdir=/tmp", "true"],
}


def _is_there(pattern: str) -> bool:
    return any(Path("/usr").glob(pattern))


lacking = [
    name
    for name, there in {
        "job_submit_lua.so": _is_there("lib/*/slurm*/job_submit_lua.so") or _is_there("lib*/slurm/job_submit_lua.so"),
        "slurm/spank.h (libslurm-dev)": _is_there("include/slurm/spank.h"),
        "make": shutil.which("make"),
        "gcc": shutil.which("gcc"),
    }.items()
    if not there
]
pytestmark = pytest.mark.skipif(bool(lacking), reason=f"not installed on this machine: {', '.join(lacking)}")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SPANK plugin as its Makefile builds and installs it."""
    root = tmp_path_factory.mktemp("spank")
    words = [f"BUILD={root}/build", f"DESTDIR={root}", "LIBDIR=/lib"]
    run(["make", "-C", str(SHIPPED / "spank"), "install", *words], {**os.environ})
    return root / "lib" / "wattkeeper.so"


@pytest.fixture(scope="module")
def submit_lab(plugin: Path) -> Iterator[Lab]:
    """Two nodes, with the filter and the plugin as deploy/slurm/README.md has them installed."""
    spec = LabSpec(nodes=(NodeSpec(),) * 2, policy=POLICY, slurm_conf=("JobSubmitPlugins=lua",))
    lab = Lab(spec)
    for source in (SHIPPED / "job_submit.lua", SHIPPED / "lua" / "wattkeeper.lua"):
        shutil.copy(source, lab.files.etc)
    (lab.files.etc / "plugstack.conf").write_text(f"optional {plugin}\n")
    with lab:
        yield lab


@pytest.fixture
def site_lab(submit_lab: Lab) -> Iterator[Lab]:
    """The same, whose site has a filter of its own that calls the module, and freezes the comments of running jobs."""
    write_filter(submit_lab, site_filter(submit_lab))
    yield submit_lab
    submit_lab.cancel_all()
    write_filter(submit_lab, (SHIPPED / "job_submit.lua").read_text())


def site_filter(lab: Lab, module: str = "wattkeeper.lua", profiles: str = '{"eco"}') -> str:
    return SITE_FILTER % {"module": lab.files.etc / module, "profiles": profiles}


def write_filter(lab: Lab, text: str) -> None:
    """slurmctld reads the filter again at the next submission, because it is newer than the one before."""
    path = lab.files.etc / "job_submit.lua"
    newer = max(path.stat().st_mtime, time.time()) + 2
    path.write_text(text)
    os.utime(path, (newer, newer))


def submit(lab: Lab, command: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs sbatch, salloc or srun with these options, whatever comes of it."""
    name, *rest = COMMANDS[command]
    return run([name, "--gres=gpu:1", *options, *rest], {**lab.env, **env}, check=False)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What the terminal shows of a submission that was refused."""
    assert done.returncode != 0, done
    assert "Submitted" not in done.stdout
    assert "Granted" not in done.stderr
    return done.stderr


def only_limit(lab: Lab, look: dict[str, float]) -> float:
    """The one limit that differs from the baseline, in watts."""
    node = next(node for node in lab.nodes.values() if set(look) == {gpu.uuid for gpu in node.simulation.show().gpus})
    (found,) = {limit for limit in by_minor(node, look).values() if limit != BASELINE_W}
    return found


def node_of(lab: Lab, job: int) -> Node:
    return lab.nodes[lab.job(job)["NodeList"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_malformed_comment_is_refused_where_its_owner_reads_it(submit_lab: Lab, command: str) -> None:
    seen = refused(submit(submit_lab, command, "--comment=night run, power=25OW"))
    assert f"{command}: error: wattkeeper: power=25OW in the comment: not a power limit; write 250W, 250" in seen
    seen = refused(submit(submit_lab, command, '--comment={"power": "250W", "note": "power=300W"}'))
    assert "wattkeeper: power=300W in the comment: the comment asks for two different things" in seen
    assert submit_lab.squeue("-h") == ""


def test_a_terminal_is_not_written_to_by_a_comment(submit_lab: Lab) -> None:
    seen = refused(submit(submit_lab, "sbatch", '--comment={"power": "\\u001b[31m%s%n\u202e"}'))
    assert "wattkeeper: power=?[31m%s%n? in the comment" in seen


@pytest.mark.parametrize(
    "comment", ["", "night run", "power=250W", '{"power": "turbo"}', "power=99999W", "horsepower=x"]
)
def test_what_is_not_malformed_is_taken(submit_lab: Lab, comment: str) -> None:
    assert submit(submit_lab, "sbatch", "--comment", comment).returncode == 0
    submit_lab.cancel_all()


def test_the_option_is_in_the_help(submit_lab: Lab) -> None:
    for command in COMMANDS:
        text = run([command, "--help"], submit_lab.env).stdout
        assert re.search(r"--gpu-power=LIMIT +power limit for each GPU", text)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("value", ["25OW", "", "250 W", "250W;", "9" * 200, "\x1b[31m"])
def test_a_malformed_option_is_refused_before_anything_is_submitted(submit_lab: Lab, command: str, value: str) -> None:
    shown = value.replace("\x1b", "?") if len(value) <= 64 else value[:64] + "..."
    problem = "not a power limit; write 250W, 250" if value else "nothing follows it"
    assert f"{command}: error: --gpu-power={shown}: {problem}" in refused(
        submit(submit_lab, command, f"--gpu-power={value}")
    )


@pytest.mark.parametrize(
    ("options", "limit_w", "asked", "outcome"),
    [
        (["--gpu-power=250W"], 250, "250W", "granted"),
        (["--gpu-power=250"], 250, "250", "granted"),
        (["--gpu-power", "eco"], 420, "eco", "granted"),
        (["--gpu-power=9999W"], 600, "9999W", "clamped"),
        (["--gpu-power=turbo"], RULE_W, "turbo", "malformed"),
        (["--gpu-power=300W", "--comment=power=250W"], 300, "300W", "granted"),
        (["--gpu-power=250W", "--gpu-power=300W"], 300, "300W", "granted"),
        (["--gpu-power=250W", "--export=NONE"], 250, "250W", "granted"),
    ],
)
def test_a_batch_jobs_first_line_has_what_the_option_asks_for(
    submit_lab: Lab, options: Sequence[str], limit_w: float, asked: str, outcome: str
) -> None:
    lab = submit_lab
    job = lab.sbatch(lab.nvml, "--gres=gpu:1", *options)
    assert lab.wait_done(job) == "COMPLETED"
    assert only_limit(lab, wait_looks(lab, job)[0]) == limit_w
    found = report(node_of(lab, job), job)
    assert (found["asked"], found["outcome"]) == (asked, outcome)
    assert f"(you asked {asked}" in lab.output(job).splitlines()[0]


def test_the_option_stands_in_a_script_as_well(submit_lab: Lab) -> None:
    lab = submit_lab
    job = lab.sbatch(f"#!/bin/sh\n#SBATCH --gpu-power=200\n#SBATCH --gres=gpu:1\n{lab.nvml}\n")
    assert only_limit(lab, wait_looks(lab, job)[0]) == 200


def test_a_step_by_srun_alone_has_what_it_asks_for(submit_lab: Lab) -> None:
    lab = submit_lab
    assert only_limit(lab, looks(lab.srun("--gres=gpu:1", "--gpu-power=70%", lab.nvml))[0]) == 490
    both = looks(lab.srun("-N2", "--gres=gpu:1", "--gpu-power=250W", lab.nvml))
    assert [only_limit(lab, look) for look in both] == [250, 250]


def test_an_allocation_has_what_it_asks_for_and_its_steps_change_nothing(submit_lab: Lab) -> None:
    lab = submit_lab
    steps = f"srun {lab.nvml}; srun --gpu-power=300W {lab.nvml}"
    done = run(["salloc", "--gres=gpu:1", "--chdir=/tmp", "--gpu-power=eco", "sh", "-c", steps], lab.env)
    assert [only_limit(lab, look) for look in looks(done.stdout)] == [420, 420]
    assert done.stderr.count("srun: --gpu-power=300W changes nothing: a job's limits are set when it begins") == 1
    assert "--gpu-power=eco" not in done.stderr


def test_a_job_submitted_from_a_job_has_its_option_unless_it_asks_itself(submit_lab: Lab) -> None:
    lab = submit_lab
    inner = "sbatch --parsable --gres=gpu:1 --chdir=/tmp --output=%s/%%j.out %s --wrap=%s"
    lines = [inner % (lab.files.out, option, lab.nvml) for option in ("", "--gpu-power=300W")]
    job = lab.sbatch("\n".join(lines), "--gres=gpu:1", "--gpu-power=250W")
    assert lab.wait_done(job) == "COMPLETED"
    inherited, own = map(int, lab.output(job).split()[-2:])
    assert only_limit_on_own_gpu(lab, inherited) == 250
    assert only_limit_on_own_gpu(lab, own) == 300


def only_limit_on_own_gpu(lab: Lab, job: int) -> float:
    """What the agent holds the job's GPU at, in watts."""
    wait_looks(lab, job)
    (gpu,) = report(node_of(lab, job), job)["gpus"]
    return float(gpu["cap_w"])


def test_a_requeued_job_asks_again(submit_lab: Lab) -> None:
    lab = submit_lab
    gate = Gate(lab, "requeued")
    script = f'{lab.nvml}; [ -n "$SLURM_RESTART_COUNT" ] || {gate.wait}'
    job = lab.sbatch(script, "--gres=gpu:1", "--gpu-power=250W", "--requeue", "--open-mode=append")
    wait_looks(lab, job)
    lab.requeue(job)
    lab.wait_state(job, "PENDING")
    time.sleep(2)  # slurmd still revokes what it was given for the job in the second of its end
    lab.scontrol("update", f"job={job}", "EligibleTime=now")
    assert [only_limit(lab, look) for look in wait_looks(lab, job, 2)] == [250, 250]


def test_who_goes_around_the_plugin_gains_nothing(submit_lab: Lab, tmp_path: Path) -> None:
    """A user's own plugin, in a slurm.conf of theirs, hands anything to the hook."""
    lab = submit_lab
    (tmp_path / "forge.c").write_text(
        "#include <slurm/spank.h>\n#include <stdlib.h>\nSPANK_PLUGIN(forge, 1)\n"
        "int slurm_spank_init_post_opt(spank_t s, int c, char **v) { (void)c; (void)v;\n"
        '  spank_job_control_setenv(s, "WATTKEEPER_GPU_POWER", getenv("FORGED"), 1); return 0; }\n'
    )
    forge = str(tmp_path / "forge.so")
    run(["gcc", "-shared", "-fPIC", "-o", forge, str(tmp_path / "forge.c")], {**os.environ})
    (tmp_path / "plugstack.conf").write_text(f"required {forge}\n")
    own = re.sub("PlugStackConfig=.*", f"PlugStackConfig={tmp_path}/plugstack.conf", lab.files.slurm_conf.read_text())
    (tmp_path / "slurm.conf").write_text(own)
    shutil.copy(lab.files.etc / "gres.conf", tmp_path)
    mine = {"SLURM_CONF": f"{tmp_path}/slurm.conf"}
    seen = refused(submit(lab, "sbatch", FORGED="250W\nSLURM_JOB_GPUS=0,1,2,3", **mine))
    assert "wattkeeper: --gpu-power=250W?SLURM_JOB_GPUS=0,1,2,3: not a power limit" in seen
    job = lab.sbatch(lab.nvml, "--gres=gpu:1", env={**mine, "FORGED": "max"})
    assert only_limit(lab, wait_looks(lab, job)[0]) == 600
    job = lab.sbatch(lab.nvml, "--gres=gpu:1", env={"SPANK_WATTKEEPER_GPU_POWER": "250W"})
    assert only_limit(lab, wait_looks(lab, job)[0]) == RULE_W


def test_a_site_has_its_own_filter_and_ours(site_lab: Lab) -> None:
    assert "the site's own word" in refused(submit(site_lab, "sbatch", "--job-name=of-the-site"))
    assert "power=25OW in the comment" in refused(submit(site_lab, "sbatch", "--comment=power=25OW"))
    seen = refused(submit(site_lab, "sbatch", "--comment=power=turbo"))
    assert "wattkeeper: power=turbo in the comment: no such profile; there are: eco" in seen
    assert "no such profile" in refused(submit(site_lab, "sbatch", "--gpu-power=turbo"))
    assert submit(site_lab, "sbatch", "--comment=power=eco").returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_comment_of_a_running_job_is_frozen(site_lab: Lab) -> None:
    lab = site_lab

    def as_nobody(*argv: str) -> subprocess.CompletedProcess[str]:
        words = [program(argv[0]), *argv[1:]]
        return subprocess.run(
            words, env=lab.env, capture_output=True, text=True, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/tmp"
        )

    def change(job: str, what: str) -> str:
        done = as_nobody("scontrol", "update", f"job={job}", what)
        return done.stderr if done.returncode else ""

    submitted = as_nobody("sbatch", "--parsable", "--gres=gpu:1", "-o/dev/null", "--hold", "--wrap=sleep 60")
    job = submitted.stdout.strip()
    assert change(job, "comment=power=25OW") == "Access/permission denied for job " + job + "\n"
    assert "Message discarded" in lab.slurmctld.text()  # this release tells nobody why, but its log
    assert change(job, "comment=power=250W") == ""
    lab.scontrol("release", job)
    lab.wait_running(int(job))
    assert change(job, "comment=power=600W").startswith("Access/permission denied")
    assert lab.squeue("-h", "-o", "%k", "-j", job).strip() == "power=250W"
    assert change(job, "comment=power=250W") == ""
    assert change(job, "timelimit=5") == ""
    lab.scontrol("update", f"job={job}", "comment=by-an-admin")
    assert lab.squeue("-h", "-o", "%k", "-j", job).strip() == "by-an-admin"
    lab.scancel(job)
    lab.wait_done(int(job))


@pytest.mark.parametrize(
    ("module", "profiles"),
    [("absent.lua", "nil"), ("broken.lua", "nil"), ("wattkeeper.lua", "5"), ("empty.lua", "nil")],
)
def test_trouble_of_ours_costs_nobody_a_job(site_lab: Lab, module: str, profiles: str) -> None:
    lab = site_lab
    (lab.files.etc / "broken.lua").write_text("this is no Lua")
    (lab.files.etc / "empty.lua").write_text("return {may_submit = function() return true end}")
    write_filter(lab, site_filter(lab, module, profiles))
    for command in COMMANDS:
        assert submit(lab, command, "--comment=power=eco").returncode == 0
    if profiles == "5":
        wait_until(
            lambda: "wattkeeper: not checked, this is a bug" in lab.slurmctld.text(), 2, "it is told", note=False
        )


def test_the_filter_alone_lets_all_pass_where_its_module_is_missing(submit_lab: Lab) -> None:
    lab = submit_lab
    module, away = lab.files.etc / "wattkeeper.lua", lab.files.etc / "away"
    module.rename(away)
    try:
        write_filter(lab, (SHIPPED / "job_submit.lua").read_text())
        assert submit(lab, "sbatch", "--comment=power=25OW").returncode == 0
        assert "wattkeeper: requests are not checked at submit: cannot open" in lab.slurmctld.text()
    finally:
        away.rename(module)
        write_filter(lab, (SHIPPED / "job_submit.lua").read_text())
        lab.cancel_all()
    assert "power=25OW in the comment" in refused(submit(lab, "sbatch", "--comment=power=25OW"))
