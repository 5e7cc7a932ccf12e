"""Who scrapes, and since when: so that a counter begins at 0 for everybody. See docs/decisions/zero-first.md."""

from dataclasses import dataclass

MOST_CLIENTS = 16
FORGOTTEN_S = 86_400.0
"""A client that has not come for so long is gone."""

YOUNG_S = 300.0
"""What a client that was never seen before has not been shown before either: label sets younger than this."""

FILE_HOLD_S = 60.0
"""How long a file shows a new label set at its beginning: whoever reads the file reads it more often than that."""


@dataclass(slots=True)
class _Client:
    last_mono: float
    visits: int = 0


class Scrapers:
    """The last scrape of each client. Times are those of snapshots, on the monotonic clock."""

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}

    def visit(self, client: str, at_mono: float) -> float:
        """A client is shown the snapshot of ``at_mono``. Label sets that are younger than the answer are new to it."""
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = _Client(at_mono - YOUNG_S)
            self._make_room(client, at_mono)
        before, known.last_mono = known.last_mono, at_mono
        known.visits += 1
        return before

    def _make_room(self, newcomer: str, now_mono: float) -> None:
        """Forget whoever is gone, or else who came least often: a crowd of strangers drives no Prometheus out."""
        others = [name for name in self._clients if name != newcomer]
        if len(others) < MOST_CLIENTS:
            return

        def worth(name: str) -> tuple[bool, int, float]:
            client = self._clients[name]
            return now_mono - client.last_mono < FORGOTTEN_S, client.visits, client.last_mono

        del self._clients[min(others, key=worth)]
