#!/usr/bin/env python3
"""Connections outlive the coordinator; under the next one new connections are accelerated."""
from echo import EchoClient, EchoServer, ManyConnections, check, run, wait_for_traffic, wait_until

ROUNDS = 4
ACCEPTS = ("epoll", "blocking")


def connections_outlive_the_coordinator(rig):
    # Two servers that are busy all along, two that sleep all along.
    busy = [EchoServer(rig, accept) for accept in ACCEPTS]
    asleep = [EchoServer(rig, accept) for accept in ACCEPTS]
    steady = [EchoClient(rig, server.port, pause_us=300) for server in busy]
    old_clients = [ManyConnections(rig, server.port) for server in asleep]
    for client in old_clients:
        client.order("hold 3")
    wait_for_traffic(steady)
    rig.check_accelerated(at_least=2 * 4 + 2 * 3)
    for _ in range(ROUNDS):
        rig.coordinator.kill()
        wait_for_traffic(steady)
        for server in busy + asleep[:1]:  # the last one really sleeps
            connect_anew(rig, server, 2)
        rig.start_coordinator()
        all_is_announced_again(rig, listeners=4)
        for server, client in zip(asleep, old_clients):
            before = 0 if rig.native else rig.accelerated()
            client.order("sequence 5")
            rig.check_accelerated(at_least=5, before=before)
            before = 0 if rig.native else rig.accelerated()
            connect_anew(rig, server, 5)
            rig.check_accelerated(at_least=5, before=before)
        wait_for_traffic(steady)
    for client in steady:
        figures = client.finish()
        check(figures["connections"] == 4 and figures["deaths"] == 0, f"reconnected: {figures}")
    for process in [client.process for client in old_clients]:
        process.finish()
    for server in busy + asleep:
        server.process.kill()
    rig.check_nothing_left()


def connect_anew(rig, server, count):
    client = ManyConnections(rig, server.port)
    client.order(f"sequence {count}")
    client.process.finish()


def all_is_announced_again(rig, listeners):
    """Without a connection that would wake anybody."""
    if not rig.native:
        wait_until(lambda: rig.status()["listeners"] == listeners,
                   f"{listeners} listeners are announced to the new coordinator", 5)
        wait_until(lambda: rig.status()["connections"] == 2 * 4 + 2 * 3,
                   "the open connections are known to the new coordinator", 5)


run(connections_outlive_the_coordinator, seconds=50)
