"""How long a job waits for its caps."""

from pathlib import Path

from tests.bench.node import CAP_W, GPUS, BenchNode, progress
from tests.bench.peers.beside import NvmlPeers
from tests.bench.results import Figure, Row, median_ms, percentile

POSTS = 100
PROLOGS = 30
POST_BOUNDS_MS = {"driver": (150.0, 300.0), "none": (10.0, 100.0)}
ADDED_BOUND_MS = 30.0


def measure(node: BenchNode, root: Path) -> list[Row]:
    """Both rows, with the Python Prolog beside them."""
    progress(f"{node.profile}: {POSTS} jobs posted by a bare socket")
    posts = []
    for _ in range(POSTS):
        job = node.job()
        posts.append(node.post_s("prolog", job))
        node.post_s("epilog", job)
    progress(f"{node.profile}: {PROLOGS} jobs through the shipped hooks, a Python Prolog beside them")
    added, whole, peer_added, peer_whole = [], [], [], []
    with NvmlPeers(root / f"peers-{node.profile}", node.profile, GPUS) as peers:
        for turn in range(PROLOGS):
            job = node.job()
            direct = peers.direct_s((CAP_W + turn % 2) * 1000)
            took, peer = node.hook_s("prolog", job), peers.prolog_s(job.environment)
            node.hook_s("epilog", job)
            whole.append(took)
            added.append(took - direct)
            peer_whole.append(peer)
            peer_added.append(peer - direct)
    bound, bound_p99 = POST_BOUNDS_MS[node.profile]
    return [
        Row(
            f"hook posted → caps set and read back, {GPUS} GPUs",
            node.profile,
            (
                Figure("median", median_ms(posts), "ms", bound),
                Figure("p99", percentile(posts, 99) * 1000, "ms", bound_p99),
            ),
            f"Python Prolog, start to end: median {median_ms(peer_whole):.0f} ms,"
            f" slowest {max(peer_whole) * 1000:.0f} ms",
            f"{POSTS} jobs",
        ),
        Row(
            "time the Prolog adds beyond the driver's own calls",
            node.profile,
            (
                Figure("median", median_ms(added), "ms", ADDED_BOUND_MS),
                Figure("whole hook, median", median_ms(whole), "ms"),
            ),
            f"Python Prolog: median {median_ms(peer_added):.0f} ms",
            f"{PROLOGS} jobs, shipped hook file",
        ),
    ]
