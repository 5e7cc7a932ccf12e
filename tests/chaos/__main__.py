"""`python -m tests.chaos [--jobs N] [--kills N] [--seed S]`: the same at length; exits 1 where a joule is not right."""

import argparse
import sys

from tests.chaos.conserve import killed, seed_of_environment, short_jobs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=None, help="of each experiment (default: four times the kills)")
    parser.add_argument("--seed", type=int, default=seed_of_environment())
    words = parser.parse_args()
    jobs = words.jobs or 4 * words.kills
    print(f"seed {words.seed}", flush=True)
    status = 0
    for name, outcome in (
        ("short jobs", lambda: short_jobs(words.seed, jobs)),
        ("kills", lambda: killed(words.seed, jobs, words.kills)),
    ):
        found = outcome()
        print(f"{name}: {found}", flush=True)
        for wrong in found.wrong:
            print(f"  WRONG: {wrong}", flush=True)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
