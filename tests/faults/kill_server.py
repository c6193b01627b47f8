#!/usr/bin/env python3
"""A server dies with its listener at random moments, and comes back on the same port."""
from echo import EchoClient, EchoServer, check, run, wait_for_traffic, wait_random, wait_until

ROUNDS = 30


def clients_come_back(rig):
    for accept in ("epoll", "blocking"):
        server = EchoServer(rig, accept)
        clients = [EchoClient(rig, server.port, preload, connections=4, messages=messages,
                              peer_may_die=True, pause_us=100)
                   for preload in (True, False) for messages in (0, 4)]
        wait_for_traffic(clients)
        for number in range(ROUNDS // 2):
            wait_random(rig, 0.1)
            server.process.kill()
            wait_random(rig, 0.03)
            server = EchoServer(rig, accept, port=server.port)
            if number % 5 == 4:
                wait_for_traffic(clients)
        before = 0 if rig.native else rig.accelerated()
        wait_for_traffic(clients)
        wait_until(lambda: rig.native or rig.accelerated() >= before + 4,
                   "connections to the last server are accelerated", 8)
        for client in clients:
            figures = client.finish()
            check(figures["deaths"] > 0, f"no connection died with the server: {figures}")
        server.process.kill()
    rig.check_nothing_left()


run(clients_come_back, seconds=60)
