#!/usr/bin/env python3
"""A client keeps the kernel's locks of what it has given to the coordinator: of a socket from which it reads, and of a
region to which it writes, both from memory that does not come. Nobody waits for it."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "faults"))
import sanitizer  # noqa: E402
from echo import EchoClient, EchoServer, check, run, wait_for_traffic  # noqa: E402
from rig import SKIPPED  # noqa: E402


def the_coordinator_serves_on(rig):
    if rig.native:
        return
    sanitizer.load_first(rig)
    server = EchoServer(rig)
    hostile = rig.start([os.path.join(rig.build.directory, "tests", "fuzz", "hostile"), rig.run_dir, server.port, "--hold"],
                        preload=False, talks=True)
    said = hostile.line()
    if said == "cannot":
        print("userfaultfd(2) is not allowed here")
        sys.exit(SKIPPED)
    check(said == "held", said)
    for _ in range(3):
        rig.status()
        before = rig.accelerated()
        client = EchoClient(rig, server.port)
        wait_for_traffic([client])
        rig.check_accelerated(1, before)
        client.finish()
    hostile.finish()


run(the_coordinator_serves_on, seconds=50)
