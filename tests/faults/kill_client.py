#!/usr/bin/env python3
"""Clients die at random moments; servers and other clients go on, and nothing of the dead stays."""
from echo import EchoClient, EchoServer, Failure, check, run, wait_for_traffic, wait_random, wait_until

ROUNDS = 36


def only_the_dead_are_gone(rig):
    servers = [EchoServer(rig, "epoll", workers=2), EchoServer(rig, "blocking")]
    survivors = [EchoClient(rig, server.port, preload, connections=2, pause_us=200)
                 for server in servers for preload in (True, False)]
    wait_for_traffic(survivors)
    descriptors = [server.descriptors() for server in servers]
    for number in range(ROUNDS):
        victims = [EchoClient(rig, server.port, preload=number % 4 != 3, connections=3,
                              messages=(0, 4)[number % 2]) for server in servers]
        wait_random(rig, 0.1)
        for victim in victims:
            victim.process.kill()
        if number % 6 == 5:
            wait_for_traffic(survivors)
    only_survivors_are_left(rig, servers, descriptors)
    rig.check_accelerated(at_least=ROUNDS)
    for client in survivors:
        figures = client.finish()
        check(figures["deaths"] == 0, f"a survivor's connection died: {figures}")
    for server in servers:
        server.process.kill()
    rig.check_nothing_left()


def only_survivors_are_left(rig, servers, descriptors):
    for server, before in zip(servers, descriptors):
        # A forked worker opens its way to the coordinator when it first needs it: a few more.
        slack = 8 * len(server.pids())
        try:
            wait_until(lambda: len(server.descriptors()) <= len(before) + slack, "")
        except Failure:
            new = {fd: what for fd, what in server.descriptors().items() if fd not in before}
            raise Failure(f"the server keeps what the dead left open: {new}") from None
    if not rig.native:
        wait_until(lambda: rig.status()["connections"] == 4 and rig.status()["clients"] <= 6,
                   f"sluiced forgets the dead: {rig.status()}")


run(only_the_dead_are_gone, seconds=60)
