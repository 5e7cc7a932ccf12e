"""Strangers before the metrics' port: slow ones that never finish a request, ones that try passwords, greedy ones.

``python crowd.py PLACE SECONDS SLOW PASSWORDS_PER_S GREEDY [CA]`` prints how often each thing happened,
as JSON. PLACE: a port, or a unix socket.
"""

import asyncio
import json
import ssl
import sys
import time
from base64 import b64encode
from collections import Counter
from contextlib import suppress

GONE = (OSError, asyncio.IncompleteReadError, TimeoutError)


class Crowd:
    def __init__(self, place: str, until: float, tls: ssl.SSLContext | None) -> None:
        self.place = place
        self.until = until
        self.tls = tls
        self.seen: Counter[str] = Counter()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.place.startswith("/"):
            return await asyncio.open_unix_connection(self.place)
        return await asyncio.open_connection("127.0.0.1", int(self.place), ssl=self.tls)

    async def slow(self, number: int) -> None:
        """Connects, says a little now and then, and comes back when it is cut off."""
        while time.monotonic() < self.until:
            with suppress(*GONE):
                _, writer = await self.connect()
                self.seen["slow came"] += 1
                try:
                    if number % 2:
                        writer.write(b"GET /metrics HTTP/1.1\r\n")
                    while time.monotonic() < self.until:
                        writer.write(b"X" if number % 2 else b"")
                        await writer.drain()
                        await asyncio.sleep(1)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.2)

    async def guess(self, number: int) -> None:
        """One wrong password."""
        token = b64encode(f"prometheus:wrong{number}".encode()).decode()
        with suppress(*GONE):
            reader, writer = await self.connect()
            try:
                writer.write(f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {token}\r\n\r\n".encode())
                line = await asyncio.wait_for(reader.readline(), 10)
                self.seen[f"password {line.split()[1].decode()}"] += 1
                return
            finally:
                writer.transport.abort()
        self.seen["password not answered"] += 1

    async def greedy(self) -> None:
        """Scrapes again as soon as it is answered, on one connection for as long as it is let."""
        while time.monotonic() < self.until:
            with suppress(*GONE):
                reader, writer = await self.connect()
                try:
                    while time.monotonic() < self.until:
                        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                        head = await reader.readuntil(b"\r\n\r\n")
                        length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                        await reader.readexactly(int(length))
                        self.seen["scraped"] += 1
                finally:
                    writer.transport.abort()

    async def run(self, slow: int, per_s: int, greedy: int) -> None:
        tasks = [asyncio.create_task(self.slow(number)) for number in range(slow)]
        tasks += [asyncio.create_task(self.greedy()) for _ in range(greedy)]
        number = 0
        while time.monotonic() < self.until and per_s:
            tasks.append(asyncio.create_task(self.guess(number)))
            number += 1
            await asyncio.sleep(1 / per_s)
        await asyncio.wait(tasks, timeout=self.until - time.monotonic() + 10)


def main() -> None:
    seconds, slow, per_s, greedy = map(int, sys.argv[2:6])
    tls = ssl.create_default_context(cafile=sys.argv[6]) if len(sys.argv) > 6 else None
    crowd = Crowd(sys.argv[1], time.monotonic() + seconds, tls)
    asyncio.run(crowd.run(slow, per_s, greedy))
    print(json.dumps(crowd.seen))


if __name__ == "__main__":
    main()
