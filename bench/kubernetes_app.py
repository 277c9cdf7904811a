"""The app that on_kubernetes.py runs. Standard library only.

Told to stop it goes on answering, each time with the last answer of that connection, until nobody has asked for a
while: there is no proxy in front of it that could ask another pod again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal

QUIET = 1.0  # seconds without a request
BODY = json.dumps({"version": os.environ["HEADWAY_VERSION"]}).encode() if "HEADWAY_VERSION" in os.environ else b"{}"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b"


class App:
    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.asked = 0.0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.told.set)
        await asyncio.start_server(self.connection, "0.0.0.0", int(os.environ.get("PORT", "8080")), backlog=1024)
        await self.told.wait()
        self.asked = loop.time()
        while (left := self.asked + QUIET - loop.time()) > 0:  # noqa: ASYNC110  # silence is no event
            await asyncio.sleep(left)

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        last = False
        try:
            while not last:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = head.decode("latin-1").lower().split("\r\n")
                length = next((one.partition(":")[2] for one in fields if one.startswith("content-length:")), "0")
                await reader.readexactly(int(length))
                self.asked = asyncio.get_running_loop().time()
                last = self.told.is_set()
                writer.write(ANSWER % (len(BODY), b"Connection: close\r\n" if last else b"", BODY))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has gone
        finally:
            writer.close()


if __name__ == "__main__":
    asyncio.run(App().run())
