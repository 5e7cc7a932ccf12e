"""Files that come with Wattkeeper: hooks and policies, in an installed wheel or in a source tree."""

from pathlib import Path

from wattkeeper.errors import WattkeeperError


def shipped(path: str) -> Path:
    """Where a file such as ``deploy/slurm/prolog.d/50-wattkeeper`` lies. Raises WattkeeperError where it does not."""
    here = Path(__file__).parent
    for root in (here, here.parents[2]):
        if (root / path).exists():
            return root / path
    raise WattkeeperError(f"{path} is not part of this installation (mend: install wattkeeper again)")
