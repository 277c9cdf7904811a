"""An app with gRPC and HTTP/1.1 on one port, as Go's or Java's servers have it. Run with `python grpc_app.py`.

`/shop.Shop/Echo` answers a unary call, `/shop.Shop/Count` streams three messages, `/health` answers by HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

HTTP_2 = b"PRI "
HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


def echo(request: bytes, _: grpc.ServicerContext) -> bytes:
    return b"echo " + request


def count(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    for number in range(3):
        yield request + str(number).encode()


def serve_grpc() -> int:
    """Port of a gRPC server."""
    server = grpc.server(ThreadPoolExecutor())
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Count": grpc.unary_stream_rpc_method_handler(count),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Shop", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    threading.Thread(target=server.wait_for_termination, daemon=True).start()
    return int(port)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # the other side has gone
    finally:
        writer.close()


async def main() -> None:
    grpc_port = serve_grpc()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(4)
        if first == HTTP_2:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", grpc_port)
            inner_writer.write(first)
            await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
        else:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEALTHY)
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", int(os.environ["PORT"]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
