#!/usr/bin/env python3
"""A server that forks for every connection serves busy clients, and keeps nothing of the past."""
import time

from echo import EchoClient, EchoServer, check, descriptors_of, run

WARM_UP_SECONDS = 1
SECONDS = 4
# For the connections that are open just now.
SLACK = 60


def nothing_of_the_past_is_kept(rig):
    server = EchoServer(rig, "fork")
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
    server.process.kill()
    rig.check_nothing_left()


def kept(rig, pids):
    figures = {f"descriptors of {pid}": len(descriptors_of(pid)) for pid in pids}
    return figures if rig.native else figures | {"regions": rig.status()["regions"]}


run(nothing_of_the_past_is_kept, seconds=60)
