"""Errors by what their reader does about them. Every message names the file, device or job, and the mend."""

from dataclasses import dataclass


class WattkeeperError(Exception):
    """Base of every error that is reported to a person instead of being a bug."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong (or doubtful) in a file that a person wrote: ``file:line: path: text``."""

    file: str
    line: int
    path: str
    text: str
    warning: bool = False

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        return f"{where}{'warning: ' if self.warning else ''}{self.path + ': ' if self.path else ''}{self.text}"


class ConfigError(WattkeeperError):
    """Settings or policy that cannot be used: the person mends the file. Holds every problem found at once."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class AgentRunningError(WattkeeperError):
    """Another process holds the lock on ``run_dir``."""


class AgentUnreachableError(WattkeeperError):
    """No agent answers on its socket, or it refused."""


class StoreError(WattkeeperError):
    """The ledger could not be read or written; capping goes on without it."""
