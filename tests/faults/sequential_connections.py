#!/usr/bin/env python3
"""100,000 connections one after the other leave nothing behind: no memory, no descriptors."""
from echo import (EchoServer, ManyConnections, anonymous_bytes, check, descriptors_of, run, wait_until)

BATCH = 20_000
BATCHES = 5
# How many may be on their way out at once, when the server is slow to close its side: they take
# their memory before it is measured.
AT_ONCE = 256
# The first 60,000 reach every table's pages; from then on, not a byte per connection: that would
# be 40 KB.
WARM_UP = 3
SLACK_BYTES = 24 << 10


def used(rig, server, client):
    pids = {"server": server.process.pid, "client": client.pid, "sluiced": rig.coordinator.pid}
    figures = {}
    for name, pid in pids.items():
        figures[f"{name}: descriptors"] = len(descriptors_of(pid))
        figures[f"{name}: bytes"] = anonymous_bytes(pid)
    if not rig.native:
        status = rig.status()
        figures |= {name: status[name] for name in ("regions", "region_bytes", "connections")}
    return figures


def nothing_stays_behind(rig):
    server = EchoServer(rig, "epoll")
    client = ManyConnections(rig, server.port)
    client.order(f"hold {AT_ONCE}")
    client.order("release")
    measured = []
    for _ in range(BATCHES):
        client.order(f"sequence {BATCH}", seconds=60)
        measured.append(used(rig, server, client))
        print(measured[-1])
    first, last = measured[WARM_UP - 1], measured[-1]
    # The server may still be about to close the very last one.
    for name, pid in (("server", server.process.pid), ("client", client.pid)):
        wait_until(lambda: len(descriptors_of(pid)) <= first[f"{name}: descriptors"],
                   f"the last descriptor of the {name} is closed", 5)
        last[f"{name}: descriptors"] = len(descriptors_of(pid))
    for name, before in first.items():
        slack = SLACK_BYTES if name.endswith("bytes") and name != "region_bytes" else 0
        check(last[name] <= before + slack,
              f"{name} grew from {before} to {last[name]} over {BATCH * (BATCHES - WARM_UP)} connections")
    rig.check_accelerated(at_least=BATCH * BATCHES)
    client.process.finish()
    server.process.kill()
    rig.check_nothing_left()


run(nothing_stays_behind, seconds=80)
