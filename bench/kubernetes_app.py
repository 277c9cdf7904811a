"""The app that on_kubernetes.py runs. Standard library only.

After SIGTERM it closes each connection with its next response, and exits after one second without a request. No proxy
in front of it could retry a request on another pod.
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
        self.terminated = asyncio.Event()
        self.last_request = 0.0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.terminated.set)
        await asyncio.start_server(self.connection, "0.0.0.0", int(os.environ.get("PORT", "8080")), backlog=1024)
        await self.terminated.wait()
        self.last_request = loop.time()
        while (left := self.last_request + QUIET - loop.time()) > 0:  # noqa: ASYNC110  # silence is no event
            await asyncio.sleep(left)

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        last = False
        try:
            while not last:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = head.decode("latin-1").lower().split("\r\n")
                length = next((one.partition(":")[2] for one in fields if one.startswith("content-length:")), "0")
                await reader.readexactly(int(length))
                self.last_request = asyncio.get_running_loop().time()
                last = self.terminated.is_set()
                writer.write(ANSWER % (len(BODY), b"Connection: close\r\n" if last else b"", BODY))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has gone
        finally:
            writer.close()


if __name__ == "__main__":
    asyncio.run(App().run())
