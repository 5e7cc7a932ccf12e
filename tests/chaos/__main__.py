"""`python -m tests.chaos [--jobs N] [--kills N] [--seed S]`: the same at length; exits 1 where a joule is not right."""

import argparse
import sys

from tests.chaos.conserve import Outcome, killed, seed_of_environment, short_jobs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=None, help="of each experiment (default: four times the kills)")
    parser.add_argument("--seed", type=int, default=seed_of_environment())
    words = parser.parse_args()
    jobs = words.jobs or 4 * words.kills
    print(f"seed {words.seed}", flush=True)
    wrong = _told("short jobs", short_jobs(words.seed, jobs))
    wrong += _told("kills", killed(words.seed, jobs, words.kills))
    return int(wrong > 0)


def _told(name: str, outcome: Outcome) -> int:
    """Prints what came of an experiment; how much was wrong."""
    print(f"{name}: {outcome}", flush=True)
    for wrong in outcome.wrong:
        print(f"  WRONG: {wrong}", flush=True)
    return len(outcome.wrong)


if __name__ == "__main__":
    sys.exit(main())
