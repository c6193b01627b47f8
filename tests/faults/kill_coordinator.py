#!/usr/bin/env python3
"""The coordinator dies at random moments while connections come and go; no client notices."""
from echo import EchoClient, EchoServer, check, run, wait_for_traffic, wait_random, wait_until

ROUNDS = 36
FIRST_WORDS_ROUNDS = 40


def no_client_notices(rig):
    servers = [EchoServer(rig, "epoll", workers=2), EchoServer(rig, "blocking")]
    clients = [EchoClient(rig, server.port, preload, connections=3, messages=3, pause_us=200)
               for server in servers for preload in (True, False)]
    clients += [EchoClient(rig, server.port, connections=2, pause_us=200) for server in servers]
    for number in range(ROUNDS):
        wait_random(rig, 0.12)
        rig.coordinator.kill()
        wait_random(rig, 0.08)
        rig.start_coordinator()
        if number % 6 == 5:
            wait_for_traffic(clients)
    wait_until(lambda: rig.native or rig.accelerated() > 0,
               "connections under the last coordinator are accelerated", 5)
    wait_for_traffic(clients)
    for client in clients:
        figures = client.finish()
        check(figures["deaths"] == 0 and figures["refused"] == 0, f"a client noticed: {figures}")
    for server in servers:
        server.process.kill()
    rig.check_nothing_left()


def first_words_are_not_lost(rig):
    """It dies while processes meet: what was on its way to either is sent again."""
    server = EchoServer(rig, "epoll")
    for _ in range(FIRST_WORDS_ROUNDS):
        clients = [EchoClient(rig, server.port, connections=2, messages=2) for _ in range(3)]
        wait_random(rig, 0.04)
        rig.coordinator.kill()
        wait_random(rig, 0.02)
        rig.start_coordinator()
        wait_for_traffic(clients)
        for client in clients:
            figures = client.finish()
            check(figures["deaths"] == 0, f"a client noticed: {figures}")
    server.process.kill()
    rig.check_nothing_left()


def all_of_it(rig):
    no_client_notices(rig)
    first_words_are_not_lost(rig)


run(all_of_it, seconds=130)
