#!/usr/bin/env python3
"""Whoever sleeps all the while that a coordinator dies hears that its peer has died: under the next one, or without any."""
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
import select, socket, sys
c = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
c.recv(1)
e = select.epoll()
e.register(c, select.EPOLLIN)
other = socket.create_server(("127.0.0.1", 0))
print("asleep soon", flush=True)
if sys.argv[2] == "epoll": e.poll()
elif sys.argv[2] == "poll": select.select([c, other], [], [])
print("end", c.recv(1), flush=True)
"""
WAYS = ("read", "read", "epoll", "epoll", "poll", "poll")
PAIRS = len(WAYS)


def peers_death_is_heard_of(rig):
    after(rig, lambda: [restart(rig) for _ in range(2)])
    rig.check_nothing_left()
    after(rig, rig.coordinator.kill)


def restart(rig):
    rig.coordinator.kill()
    rig.start_coordinator()


def after(rig, what):
    servers = [rig.start([sys.executable, "-c", SERVER], talks=True) for _ in range(PAIRS)]
    clients = [rig.start([sys.executable, "-c", CLIENT, server.line(), way], talks=True) for server, way in zip(servers, WAYS)]
    for client in clients:
        check(client.line() == "asleep soon", "the client has not begun")
    rig.check_accelerated(at_least=PAIRS)
    what()
    for server in servers:
        server.kill()
    for client, way in zip(clients, WAYS):
        line = client.line(10)
        check(line == "end b''", f"the client in {way} is told {line}")
        client.finish()


run(peers_death_is_heard_of, seconds=50)
