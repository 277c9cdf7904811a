"""Program: listen on loopback ports, given as arguments, and send the sockets over standard input, a Unix socket."""

import socket
import sys

__all__: list[str] = []

if __name__ == "__main__":
    listeners = [socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[1:]]
    with socket.socket(fileno=0) as channel:
        socket.send_fds(channel, [b"1"], [listener.fileno() for listener in listeners])
