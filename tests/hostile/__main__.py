"""`python -m tests.hostile [N] [--seed S]`: meets N damaged state files, and says the seed to meet them again."""

import argparse
import random
import sys
import time
from collections import Counter
from dataclasses import asdict

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.hostile.damage import Damage, damages
from tests.hostile.host import Host, WorkerError, missing

EVERY = 500


def fuzz(count: int, chance: int) -> Counter[str]:
    """What became of so many files. Raises WorkerError at the first that a client did not survive, made small."""
    became: Counter[str] = Counter()
    start = time.monotonic()
    with Host() as host:
        host.ask("exercise", timeout_s=300)

        @seed(chance)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(damages)
        def meet(damage: Damage) -> None:
            became[host.ask("damaged", timeout_s=30, **asdict(damage))] += 1
            if became.total() % EVERY == 0:
                progress = ", ".join(f"{what} {times}" for what, times in became.most_common())
                print(f"fuzz: {became.total()} of {count} in {time.monotonic() - start:.0f} s: {progress}", flush=True)

        meet()
    return became


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))  # noqa: S311
    words = parser.parse_args()
    if lack := missing():
        print(f"fuzz: not run here: {lack}")
        return 0
    print(f"fuzz: seed {words.seed}", flush=True)
    try:
        became = fuzz(words.count, words.seed)
    except WorkerError as error:
        print(f"fuzz: {error}\nfuzz: again with --seed {words.seed}", file=sys.stderr)
        return 1
    print(f"fuzz: {became.total()} damaged files, no crash: {dict(became.most_common())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
