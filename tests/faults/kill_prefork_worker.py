#!/usr/bin/env python3
"""Workers that serve one connection at a time die at random moments; the others serve them all."""
from echo import EchoClient, EchoServer, check, run, wait_for_traffic, wait_random

ROUNDS = 40


def the_others_serve_on(rig):
    server = EchoServer(rig, "prefork", workers=4)
    # More connections than workers: some always wait for a busy one.
    clients = [EchoClient(rig, server.port, preload, connections=4, messages=messages,
                          peer_may_die=True, pause_us=pause_us)
               for preload in (True, False) for messages, pause_us in ((2, 0), (8, 500))]
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
        check(figures["refused"] == 0, f"refused although there is a listener: {figures}")
    rig.check_accelerated(at_least=ROUNDS)
    server.process.kill()
    rig.check_nothing_left()


run(the_others_serve_on, seconds=60)
