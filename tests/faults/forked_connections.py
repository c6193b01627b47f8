#!/usr/bin/env python3
"""A server that forks for every connection serves busy clients, and keeps nothing of the past."""
import time

from echo import (EchoClient, EchoServer, ManyConnections, check, children_of, descriptors_of, run,
                  wait_for_traffic)

WARM_UP_SECONDS = 1
SECONDS = 4
# For the connections that are open just now.
SLACK = 60
IDLE_CHILDREN = 5
# A busy child has a bell of its own after a few sleeps.
MOST_WOKEN = 50


def nothing_of_the_past_is_kept(rig, server):
    clients = [EchoClient(rig, server.port, preload, connections=4, messages=messages, pause_us=200)
               for preload in (True, False) for messages in (0, 3)]
    time.sleep(WARM_UP_SECONDS)
    watched = [server.process.pid, *(client.pid for client in clients)]
    before = kept(rig, watched)
    time.sleep(SECONDS)
    after = kept(rig, watched)
    made = [client.figures()["connections"] for client in clients]
    print(f"connections {made}; descriptors and regions {before} then {after}")
    for client in clients:
        figures = client.finish()
        check(figures["deaths"] == 0, f"a connection died: {figures}")
    for what, number in before.items():
        check(after[what] <= number + SLACK,
              f"{what} grew from {number} to {after[what]} over {sum(made)} connections")
    rig.check_accelerated(at_least=50)


def idle_siblings_sleep_on(rig):
    """While one child is busy, its parent and the children beside it are not woken for its bytes."""
    server = EchoServer(rig, "forkpoll")
    idle = ManyConnections(rig, server.port)
    idle.order(f"hold {IDLE_CHILDREN}")
    asleep = [server.process.pid, *children_of(server.process.pid)]
    check(len(asleep) == 1 + IDLE_CHILDREN, f"{len(asleep) - 1} children")
    client = EchoClient(rig, server.port, connections=1, pause_us=200)
    wait_for_traffic([client])
    before, bytes_before = [sleeps(pid) for pid in asleep], client.figures()["bytes"]
    time.sleep(SECONDS / 2)
    woken = [sleeps(pid) - n for pid, n in zip(asleep, before)]
    check(client.figures()["bytes"] - bytes_before > 10_000, "the busy one is not busy")
    check(max(woken) < MOST_WOKEN, f"woken {woken} times for the bytes of another process")
    idle.order("release")
    for process in (idle.process, client):
        process.finish()
    server.process.kill()


def sleeps(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))


def servers_that_fork(rig):
    for accept in ("fork", "forkpoll"):
        server = EchoServer(rig, accept)
        nothing_of_the_past_is_kept(rig, server)
        server.process.kill()
    idle_siblings_sleep_on(rig)
    rig.check_nothing_left()


def kept(rig, pids):
    figures = {f"descriptors of {pid}": len(descriptors_of(pid)) for pid in pids}
    return figures if rig.native else figures | {"regions": rig.status()["regions"]}


run(servers_that_fork, seconds=100)
