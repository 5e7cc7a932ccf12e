"""`python -m tests.fuzz [TARGET …] [--seconds N]`: fuzzes with atheris where it is installed, else by chance.

atheris sees which lines of the code an input came to. Without it inputs are changed at random, from the same seeds.
What made a target fail is kept in a file that is named; `--again FILE TARGET` throws it once more.
"""

import argparse
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

NAMES = ("comment", "yaml", "hook", "http", "actuator")
LONGEST = 4096


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", default=list(NAMES), help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))  # noqa: S311
    parser.add_argument("--again", type=Path, help="a file that made the target fail")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if unknown := set(words.targets) - set(NAMES):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if words.again:
        _again(words.targets[0], words.again)
        return 0
    if words.here:
        _fuzz(words.targets[0], words.seconds, words.seed, words.here)
        return 0
    return max(_apart(name, words.seconds, words.seed) for name in words.targets)


def _apart(name: str, seconds: int, seed: int) -> int:
    """In a process of its own, which libFuzzer ends when it is done."""
    by = "atheris" if importlib.util.find_spec("atheris") else "chance (atheris is not installed)"
    print(f"fuzz {name}: {seconds} s by {by}, seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix=f"wk-fuzz-{name}-"))
    here = [sys.executable, "-m", "tests.fuzz", name, f"--here={folder}", f"--seconds={seconds}", f"--seed={seed}"]
    status = subprocess.run(here, env={**os.environ, "TMPDIR": str(folder)}, check=False).returncode
    kept = sorted(folder.glob("crash*")) + sorted(folder.glob("timeout*"))
    print(f"fuzz {name}: {'found nothing' if status == 0 else f'FAILED: status {status}, {kept}'}", flush=True)
    if status == 0:
        shutil.rmtree(folder)
    return int(status != 0)


def _fuzz(name: str, seconds: int, seed: int, folder: Path) -> None:
    if importlib.util.find_spec("atheris"):
        _by_coverage(name, seconds, seed, folder)
    else:
        _by_chance(name, seconds, seed, folder)


def _by_coverage(name: str, seconds: int, seed: int, folder: Path) -> None:
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with atheris.instrument_imports(include=["wattkeeper", "aiohttp", "yaml"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(content)
    words = folder / "words"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words))
    options = {
        "max_total_time": seconds,
        "max_len": LONGEST,
        "seed": seed or 1,
        "timeout": 10,
        "print_final_stats": 1,
        "verbosity": 0,
        "artifact_prefix": f"{folder}/",
        "dict": words,
    }
    stack = ExitStack()
    throw = target.open(stack)
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus)], throw)
    atheris.Fuzz()  # ends the process


def _by_chance(name: str, seconds: int, seed: int, folder: Path) -> None:
    from tests.fuzz.targets import TARGETS

    target, chance = TARGETS[name], random.Random(seed)  # noqa: S311
    start, count, slowest_s = time.monotonic(), 0, 0.0
    with ExitStack() as stack:
        throw = target.open(stack)
        while time.monotonic() - start < seconds:
            raw = changed(chance, target.seeds, target.words)
            begun = time.monotonic()
            try:
                throw(raw)
            except BaseException:
                (folder / "crash").write_bytes(raw)
                print(f"fuzz {name}: after {count} inputs", file=sys.stderr)
                raise
            slowest_s = max(slowest_s, time.monotonic() - begun)
            count += 1
    print(f"fuzz {name}: {count} inputs, the slowest took {slowest_s * 1000:.0f} ms", flush=True)


def changed(chance: random.Random, seeds: tuple[bytes, ...], words: tuple[bytes, ...]) -> bytes:
    """A seed with some of its bytes replaced, doubled, removed, or mixed with words and other seeds."""
    raw = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 5, 10, 30))):
        at = chance.randint(0, len(raw))
        end = min(len(raw), at + chance.choice((0, 1, 1, 2, 4, 16, 64)))
        match chance.randrange(6):
            case 0:
                raw[at:end] = chance.randbytes(end - at)
            case 1:
                raw[at:end] = b""
            case 2:
                raw[at:at] = raw[at:end] * chance.choice((1, 2, 50))
            case 3:
                raw[at:end] = chance.choice(words)
            case 4:
                other = chance.choice(seeds)
                raw[at:] = other[chance.randint(0, len(other)) :]
            case 5 if at < len(raw):
                raw[at] ^= 1 << chance.randrange(8)
    return bytes(raw[:LONGEST])


def _again(name: str, file: Path) -> None:
    from tests.fuzz.targets import TARGETS

    with ExitStack() as stack:
        TARGETS[name].open(stack)(file.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
