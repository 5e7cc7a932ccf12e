"""Strangers before the metrics' port: slow ones that never finish a request, and ones that try passwords.

``python crowd.py PORT SECONDS SLOW PASSWORDS_PER_S [CA]`` prints how often each thing happened, as JSON.
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
    def __init__(self, port: int, until: float, tls: ssl.SSLContext | None) -> None:
        self.port = port
        self.until = until
        self.tls = tls
        self.seen: Counter[str] = Counter()

    async def slow(self, number: int) -> None:
        """Connects, says a little now and then, and comes back when it is cut off."""
        while time.monotonic() < self.until:
            with suppress(*GONE):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
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
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
            try:
                writer.write(f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {token}\r\n\r\n".encode())
                line = await asyncio.wait_for(reader.readline(), 10)
                self.seen[f"password {line.split()[1].decode()}"] += 1
                return
            finally:
                writer.transport.abort()
        self.seen["password not answered"] += 1

    async def run(self, slow: int, per_s: int) -> None:
        tasks = [asyncio.create_task(self.slow(number)) for number in range(slow)]
        number = 0
        while time.monotonic() < self.until:
            tasks.append(asyncio.create_task(self.guess(number)))
            number += 1
            await asyncio.sleep(1 / per_s)
        await asyncio.wait(tasks, timeout=10)


def main() -> None:
    port, seconds, slow, per_s = map(int, sys.argv[1:5])
    tls = ssl.create_default_context(cafile=sys.argv[5]) if len(sys.argv) > 5 else None
    crowd = Crowd(port, time.monotonic() + seconds, tls)
    asyncio.run(crowd.run(slow, per_s))
    print(json.dumps(crowd.seen))


if __name__ == "__main__":
    main()
