#!/usr/bin/env python3
"""While the coordinator does not answer, connections are made, by the kernel if need be."""
import signal
import time

from echo import (EchoClient, EchoServer, ManyConnections, check, run, wait_for_traffic, wait_until)

STOPPED_SECONDS = 1


def late_registration(rig, client):
    """Who said hello while the coordinator was stopped is known to it afterwards."""
    if rig.native:
        return

    def accelerated():
        before = rig.accelerated()
        client.order("sequence 1")
        return rig.accelerated() > before
    wait_until(accelerated, "a newcomer's connection is accelerated")


def nobody_waits_for_ever(rig):
    servers = [EchoServer(rig, "epoll"), EchoServer(rig, "blocking")]
    clients = [EchoClient(rig, server.port, preload, connections=3, messages=3, pause_us=200)
               for server in servers for preload in (True, False)]
    steady = [EchoClient(rig, server.port, connections=2, pause_us=200) for server in servers]
    for _ in range(2):
        wait_for_traffic(clients + steady)
        rig.coordinator.send(signal.SIGSTOP)
        end = time.monotonic() + STOPPED_SECONDS
        newcomers = [ManyConnections(rig, server.port) for server in servers]
        for client in newcomers:
            client.order("sequence 100")
        wait_for_traffic(steady)
        time.sleep(max(0, end - time.monotonic()))
        rig.coordinator.send(signal.SIGCONT)
        for client in newcomers:
            late_registration(rig, client)
            client.process.finish()
    before = 0 if rig.native else rig.accelerated()
    for server in servers:
        client = ManyConnections(rig, server.port)
        client.order("sequence 10")
        client.process.finish()
    rig.check_accelerated(at_least=20, before=before)
    for client in clients + steady:
        figures = client.finish()
        check(figures["deaths"] == 0 and figures["refused"] == 0, f"a client noticed: {figures}")
    for server in servers:
        server.process.kill()
    rig.check_nothing_left()


run(nobody_waits_for_ever, seconds=40)
