#!/usr/bin/env python3
"""2,000 idle connections use no CPU, and 16 KiB each at most, both ends and sluiced together."""
import time

from echo import (EchoServer, ManyConnections, anonymous_bytes, check, cpu_ticks, run,
                  shared_memory_bytes, wait_until)

CONNECTIONS = 2000
BYTES_PER_CONNECTION = 16 << 10
IDLE_SECONDS = 2
TICKS = 2


def idle_connections_cost_little(rig):
    server = EchoServer(rig, "epoll")
    client = ManyConnections(rig, server.port)
    pids = {"server": server.process.pid, "client": client.pid, "sluiced": rig.coordinator.pid}
    client.order("hold 1")  # code and tables that any connection needs
    before = used(rig, pids)
    client.order(f"hold {CONNECTIONS}")
    rig.check_accelerated(at_least=CONNECTIONS)
    after = used(rig, pids)
    growth = {name: after[name] - before[name] for name in after}
    print({name: f"{grown / CONNECTIONS:.0f} B" for name, grown in growth.items()})
    per_connection = (growth["private"] + growth["regions"]) / CONNECTIONS
    check(per_connection <= BYTES_PER_CONNECTION,
          f"{per_connection:.0f} bytes per connection: {growth}")
    check(growth["shared"] <= growth["regions"] + (1 << 20),
          f"more shared memory in use than sluiced counts: {growth}")

    client.order("wait")
    uses_no_cpu(pids)
    client.process.finish()
    nothing_but_the_listener_is_left(rig)
    server.process.kill()
    rig.check_nothing_left()


def used(rig, pids):
    return {"private": sum(anonymous_bytes(pid) for pid in pids.values()),
            "shared": sum(shared_memory_bytes(pid) for pid in pids.values()),
            "regions": 0 if rig.native else rig.status()["region_bytes"]}


def uses_no_cpu(pids):
    time.sleep(0.3)  # until what has just been said is done with
    before = {name: cpu_ticks(pid) for name, pid in pids.items()}
    time.sleep(IDLE_SECONDS)
    for name, pid in pids.items():
        ticks = cpu_ticks(pid) - before[name]
        check(ticks <= TICKS, f"{name} used {ticks} ticks of CPU in {IDLE_SECONDS} idle seconds")


def nothing_but_the_listener_is_left(rig):
    if not rig.native:
        wait_until(lambda: rig.status()["connections"] == 0, "sluiced forgets the connections")


run(idle_connections_cost_little, seconds=50)
