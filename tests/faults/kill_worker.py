#!/usr/bin/env python3
"""Server workers die at random moments; their clients see it, and are served by the next ones."""
from echo import EchoClient, EchoServer, check, run, wait_for_traffic, wait_random

ROUNDS = 40


def clients_find_the_next_worker(rig):
    server = EchoServer(rig, "epoll", workers=3)
    clients = [EchoClient(rig, server.port, preload, connections=4, messages=messages,
                          peer_may_die=True, pause_us=100)
               for preload in (True, False) for messages in (0, 4)]
    wait_for_traffic(clients)
    for number in range(ROUNDS):
        wait_random(rig, 0.08)
        server.kill_one(rig)
        if number % 8 == 7:
            wait_for_traffic(clients)
    wait_for_traffic(clients)
    for client in clients:
        figures = client.finish()
        print(figures)
        check(figures["deaths"] > 0, f"no connection died with its worker: {figures}")
        check(figures["refused"] == 0, f"refused although there is a listener: {figures}")
    rig.check_accelerated(at_least=ROUNDS)
    server.process.kill()
    rig.check_nothing_left()


run(clients_find_the_next_worker, seconds=60)
