#!/usr/bin/env python3
"""200 processes that come at once are all served, and nothing of them is left."""
from concurrent.futures import ThreadPoolExecutor

from echo import EchoServer, ManyConnections, check, run

PROCESSES = 200
CONNECTIONS = 10


def all_are_served(rig):
    server = EchoServer(rig, "epoll")
    clients = [ManyConnections(rig, server.port) for _ in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(lambda client: client.order(f"hold {CONNECTIONS}"), clients))
    rig.check_accelerated(at_least=PROCESSES * CONNECTIONS)
    if not rig.native:
        check(rig.status()["clients"] == PROCESSES + 1, "every process is a client")
    for client in clients:
        client.process.finish()
    server.process.kill()
    rig.check_nothing_left()


run(all_are_served, seconds=60)
