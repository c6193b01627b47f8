#!/usr/bin/env python3
"""The coordinator's run directory is on a file system that is full: it says so and ends, programs go on without it, and
when there is space it starts and they come back. One that runs does not mind."""
import ctypes
import os
import sys

from echo import EchoClient, EchoServer, ManyConnections, check, run, wait_for_traffic, wait_until

SKIPPED = 77
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
MS_REMOUNT = 32
libc = ctypes.CDLL(None, use_errno=True)


def mount(path, options, flags=0):
    if libc.mount(b"tmpfs", path.encode(), b"tmpfs", flags, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), "mount")


def come_back(rig, port):
    def accelerated():
        before = rig.accelerated()
        client = ManyConnections(rig, port)
        client.order("sequence 2")
        client.process.finish()
        return rig.accelerated() > before
    wait_until(accelerated, "connections are accelerated")


def disk_full(rig):
    if rig.native:
        return
    rig.coordinator.kill(15)
    mount(rig.run_dir, "size=64k,nr_inodes=20,mode=755")
    rig.start_coordinator()
    server = EchoServer(rig, "epoll")
    steady = [EchoClient(rig, server.port, connections=2, pause_us=200)]
    wait_for_traffic(steady)

    with open(os.path.join(rig.run_dir, "filler"), "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    come_back(rig, server.port)  # one that runs needs no space
    rig.coordinator.kill(15)
    wait_for_traffic(steady)
    os.remove(os.path.join(rig.run_dir, "filler"))
    used = len(os.listdir(rig.run_dir)) + 1
    mount(rig.run_dir, f"size=64k,nr_inodes={used}", MS_REMOUNT)
    failed = rig.start([rig.build.sluiced, "--foreground", f"--dir={rig.run_dir}"], preload=False)
    status = failed._popen.wait(20)
    check(status > 0, f"sluiced in a full directory ends with {status}")
    check(rig.run_dir in failed.log() and "space" in failed.log(), f"sluiced says: {failed.log()}")
    client = ManyConnections(rig, server.port)
    client.order("sequence 3")
    client.process.finish()
    wait_for_traffic(steady)
    mount(rig.run_dir, "size=64k,nr_inodes=20", MS_REMOUNT)
    rig.start_coordinator()
    come_back(rig, server.port)
    for one in steady:
        figures = one.finish()
        check(figures["deaths"] == 0, f"a steady client noticed: {figures}")
    server.process.kill()
    rig.check_nothing_left()


if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
    print("may not mount anything here")
    sys.exit(SKIPPED)
run(disk_full, seconds=60)
