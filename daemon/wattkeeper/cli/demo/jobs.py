"""The example jobs, and the policy that they meet."""

from dataclasses import dataclass

POLICY = """\
version: 1
profiles:
  eco: {cap: 50%}
caps:                                   # the first match gives a job its cap
  - name: debug
    when: {partition: debug}
    cap: eco                            # no `requests`: whoever asks is denied
  - name: ml-groups
    when: {account: "ml-*"}
    cap: 80%
    requests: {min: 40%, max: baseline}
  - name: everyone
    cap: baseline
    requests: {min: min, max: baseline}
ceilings:                               # every match applies, the lowest wins
  - name: multi-gpu
    when: {gpus: ">=2"}
    cap: 75%
idle: {cap: baseline}
"""


@dataclass(frozen=True, slots=True)
class ExampleJob:
    """A job of the demo. ``start`` and ``end`` are shares of the demo's time; ``load`` of a GPU, 0 to 1."""

    job_id: int
    user: str
    account: str
    partition: str
    comment: str
    gpus: tuple[int, ...]
    start: float
    end: float
    load: float
    tale: str
    epilog: bool = True


JOBS = (
    ExampleJob(101, "alice", "ml-vision", "gpu", "power=300W", (0,), 0.04, 0.46, 0.95, "asks for less: granted"),
    ExampleJob(102, "bob", "ml-speech", "gpu", "power=100W", (1,), 0.10, 0.44, 0.90, "asks for too little: clamped"),
    ExampleJob(103, "carol", "physics", "debug", "power=baseline", (2,), 0.18, 0.40, 0.80, "may not ask: denied"),
    ExampleJob(104, "dave", "bio", "gpu", "power=25OW", (3,), 0.26, 0.42, 0.70, "mistypes a 0: malformed"),
    ExampleJob(105, "erin", "ml-vision", "gpu", "nightly run", (2, 3), 0.50, 0.90, 1.00, "asks nothing, on two GPUs"),
    ExampleJob(106, "frank", "bio", "gpu", "power=eco", (0,), 0.56, 0.70, 0.90, "its Epilog gets lost", epilog=False),
    ExampleJob(107, "grace", "ml-speech", "gpu", "power=60%", (0,), 0.74, 0.92, 0.95, "takes the GPU of job 106"),
)
