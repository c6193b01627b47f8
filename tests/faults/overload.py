#!/usr/bin/env python3
"""10,000 connections from 200 processes at one server, and some that send and never read: all the others go on, and
memory stays within what flow control allows."""
import resource
from concurrent.futures import ThreadPoolExecutor

from echo import EchoClient, EchoServer, ManyConnections, anonymous_bytes, check, run, wait_for_traffic

PROCESSES, EACH = 199, 50
SLOW = 50
AT_ONCE = 50
# Both directions' largest ring, and what they grew from; and what the server itself has read and not sent.
SLOW_BYTES = 2 * (1 << 20) + 2 * (512 << 10)
IDLE_BYTES = 16 << 10
COORDINATOR_BYTES = 96 << 20
DESCRIPTORS = 12_000
ROUNDS = 3


def overload(rig):
    server = EchoServer(rig, "epoll")
    steady = [EchoClient(rig, server.port, preload, connections=2, pause_us=200) for preload in (True, False)]
    wait_for_traffic(steady)
    before = {name: anonymous_bytes(pid) for name, pid in (("server", server.process.pid), ("sluiced", rig.coordinator.pid))}
    crowd = [ManyConnections(rig, server.port) for _ in range(PROCESSES)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda client: client.order(f"hold {EACH}", 60), crowd))
    rig.check_accelerated(at_least=PROCESSES * EACH + 2)
    if not rig.native:
        check(rig.status()["connections"] >= PROCESSES * EACH, f"not all are there: {rig.status()}")
        idle = rig.status()["region_bytes"]
        # The first connection of two processes brings their regions.
        check(idle <= PROCESSES * EACH * IDLE_BYTES + PROCESSES * (1 << 20), f"{idle} bytes for idle connections")
    wait_for_traffic(steady)

    slow = rig.script(SLOW_READER, server.port, SLOW)
    taken = int(slow.line(60))
    print(f"{taken} bytes taken on {SLOW} connections that do not read")
    for _ in range(ROUNDS):
        wait_for_traffic(steady)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda client: client.order("sequence 1", 60), crowd))
        more = int(slow.ask("more"))
        check(more == 0, f"{more} bytes more were taken of those who do not read")
    if not rig.native:
        check(taken <= SLOW * SLOW_BYTES, f"{taken} bytes were taken on {SLOW} connections")
        grown = rig.status()["region_bytes"] - idle
        # "sequence" makes a connection anew in regions that are there.
        check(grown <= SLOW * SLOW_BYTES + PROCESSES * EACH * 1024, f"regions have grown by {grown} bytes")
    grown = {name: anonymous_bytes(pid) - before[name]
             for name, pid in (("server", server.process.pid), ("sluiced", rig.coordinator.pid))}
    print(f"private memory has grown by {grown}")
    check(grown["server"] <= PROCESSES * EACH * IDLE_BYTES + SLOW * SLOW_BYTES, f"the server has grown: {grown}")
    check(grown["sluiced"] <= COORDINATOR_BYTES, f"sluiced has grown: {grown}")
    slow.kill()
    for client in crowd:
        client.process.finish(60)
    wait_for_traffic(steady)
    for client in steady:
        figures = client.finish()
        check(figures["deaths"] == 0, f"a steady client noticed: {figures}")
    server.process.kill()
    rig.check_nothing_left(30)


SLOW_READER = __file__.replace("overload.py", "slow_reader.py")
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(DESCRIPTORS, min(hard, 20_000)), max(hard, DESCRIPTORS)))
run(overload, seconds=200)
