#!/usr/bin/env python3
"""Whoever sleeps in a blocking read all the while that a coordinator dies and another one comes, hears under the next one
that its peer has died."""
import sys

from echo import run
from rig import check

SERVER = """\
import socket
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
c = s.accept()[0]
c.send(b"x")
input()
"""
CLIENT = """\
import socket, sys
c = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
c.recv(1)
print("asleep soon", flush=True)
print("end", c.recv(1), flush=True)
"""
PAIRS = 4


def peers_death_is_heard_of(rig):
    servers = [rig.start([sys.executable, "-c", SERVER], talks=True) for _ in range(PAIRS)]
    clients = [rig.start([sys.executable, "-c", CLIENT, server.line()], talks=True) for server in servers]
    for client in clients:
        check(client.line() == "asleep soon", "the client has not begun")
    rig.check_accelerated(at_least=PAIRS)
    for _ in range(2):
        rig.coordinator.kill()
        rig.start_coordinator()
    for server in servers:
        server.kill()
    for client in clients:
        line = client.line(10)
        check(line == "end b''", f"the client is told {line}")
        client.finish()
    rig.check_nothing_left()


run(peers_death_is_heard_of, seconds=50)
