#!/usr/bin/env python3
"""The coordinator is replaced by one of a later minor version, which says things that these programs do not know; and
that one by today's again."""
import os
import signal

from echo import EchoClient, EchoServer, ManyConnections, check, run, wait_for_traffic


def later_and_back(rig):
    today, later = rig.build.sluiced, os.path.join(rig.options.build, "tests", "faults", "sluiced-deaths")
    servers = [EchoServer(rig, "epoll"), EchoServer(rig, "blocking")]
    steady = [EchoClient(rig, server.port, connections=2, messages=messages, pause_us=200)
              for server in servers for messages in (0, 5)]
    for program, version, number in ((later, "0.2.0", signal.SIGKILL), (today, "0.1.0", signal.SIGTERM)):
        wait_for_traffic(steady)
        rig.coordinator.kill(number)
        wait_for_traffic(steady)
        rig.build.sluiced = program
        rig.start_coordinator()
        wait_for_traffic(steady)
        if rig.native:
            continue
        check(rig.status()["version"] == version, f"it is {rig.status()['version']}")
        before = rig.accelerated()
        for server in servers:
            client = ManyConnections(rig, server.port)
            client.order("sequence 5")
            client.process.finish()
        rig.check_accelerated(at_least=10, before=before)
    for client in steady:
        figures = client.finish()
        check(figures["deaths"] == 0 and figures["refused"] == 0, f"a client noticed: {figures}")
    for server in servers:
        server.process.kill()
    rig.check_nothing_left()


run(later_and_back, seconds=60)
