"""The app that switch.py runs: quick answers, slow ones, streams and websockets. Standard library only.

On SIGTERM it prints the number of requests in flight, finishes them, closes its websockets and exits.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import signal
import struct

SLOW = 5.0  # seconds
CHUNKS, BETWEEN_CHUNKS = 20, 0.2  # a stream of 4 s
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
GOING_AWAY = struct.pack("!H", 1001)

BODY = json.dumps({"version": os.environ["HEADWAY_VERSION"]}).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class App:
    def __init__(self) -> None:
        self.in_flight = 0
        self.sockets: set[asyncio.StreamWriter] = set()
        self.idle = asyncio.Event()
        self.terminated = asyncio.Event()

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.terminated.set)
        server = await asyncio.start_server(
            self.connection, os.environ.get("LISTEN", "127.0.0.1"), int(os.environ["PORT"]), backlog=1024
        )
        await self.terminated.wait()
        print(f"SIGTERM with {self.in_flight} requests in flight, {len(self.sockets)} websockets", flush=True)
        server.close()
        for socket in self.sockets:
            socket.write(_frame(CLOSE, GOING_AWAY))
        while self.in_flight or self.sockets:
            self.idle.clear()
            await self.idle.wait()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                path, headers = _head(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(int(headers.get("content-length", "0")))
                if "sec-websocket-key" in headers:
                    await self.socket(reader, writer, headers["sec-websocket-key"].encode())
                    return
                self.in_flight += path != "/health"
                try:
                    await _answer(path, writer)
                finally:
                    self.in_flight -= path != "/health"
                    self.idle.set()

    async def socket(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes) -> None:
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        writer.write(b"%bSec-WebSocket-Accept: %b\r\n\r\n" % (upgrade, accept))
        self.sockets.add(writer)
        try:
            await self.echo(reader, writer)
        finally:
            self.sockets.discard(writer)
            self.idle.set()

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            first, second = await reader.readexactly(2)
            length = second & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
            mask = await reader.readexactly(4)
            payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(await reader.readexactly(length)))
            kind = first & 0x0F
            if kind == CLOSE and self.terminated.is_set():
                return  # the answer to ours
            if kind in (TEXT, PING, CLOSE):
                writer.write(_frame(PONG if kind == PING else kind, payload))
                await writer.drain()
            if kind == CLOSE:
                return


async def _answer(path: str, writer: asyncio.StreamWriter) -> None:
    if path == "/stream":
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(CHUNKS):
            line = b"%d\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
            await writer.drain()
            await asyncio.sleep(BETWEEN_CHUNKS)
        writer.write(b"0\r\n\r\n")
    else:
        if path == "/slow":
            await asyncio.sleep(SLOW)
        writer.write(ANSWER)
    await writer.drain()


def _frame(kind: int, payload: bytes) -> bytes:
    """A frame with at most 125 bytes of payload, which is enough here."""
    return bytes((0x80 | kind, len(payload))) + payload


def _head(head: bytes) -> tuple[str, dict[str, str]]:
    request, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines if line)
    return request.split(" ")[1], {name.lower(): value.strip() for name, _, value in fields}


if __name__ == "__main__":
    asyncio.run(App().run())
