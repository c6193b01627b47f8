#!/usr/bin/env python3
"""The coordinator's socket survives hostile clients: others are served, nobody else is dropped, nothing is left."""
import os
import signal

from echo import EchoClient, EchoServer, ManyConnections, check, descriptors_of, run, wait_for_traffic
from raw_client import for_others

MOST_DESCRIPTORS = 600  # that wait for others because of one client: 256, and as many of its own


def others_are_served(rig, server, what):
    before = rig.accelerated()
    client = ManyConnections(rig, server.port)
    client.order("sequence 10")
    client.process.finish()
    rig.check_accelerated(at_least=10, before=before)
    check(rig.coordinator.running(), f"sluiced has died of {what}")


def domain_of(rig, pid):
    return next(c["domain"] for c in rig.status()["clients_detail"] if c["pid"] == pid)


def hostile_clients(rig):
    if rig.native:
        return
    server, victim = EchoServer(rig), EchoServer(rig)
    steady = EchoClient(rig, server.port, connections=2, pause_us=200)
    others_are_served(rig, victim, "nothing")
    known = domain_of(rig, victim.process.pid)

    def hostile():
        return for_others(rig, "hostile_client.py", rig.run_dir, rig.status()["protocol"])
    for order in ("partial_messages", "nonsense", "silence", "descriptors", "slowness", "lingering"):
        process = hostile()
        check(process.ask(order, 60) == "done", f"{order} fails")
        others_are_served(rig, server, order)
        process.finish()
    for order in ("channels", "bells"):
        before = len(descriptors_of(rig.coordinator.pid))
        victim.process.send(signal.SIGSTOP)
        process = hostile()
        said = process.ask(f"{order} {known}", 60).split()
        check(said[0] == "done", f"{order}: {said}")
        check(order == "bells" or int(said[1]) > 1000, f"{said}: too few descriptors for another are refused")
        others_are_served(rig, server, order)
        now = len(descriptors_of(rig.coordinator.pid))
        check(now - before < MOST_DESCRIPTORS, f"sluiced keeps {now - before} descriptors for {order}")
        victim.process.send(signal.SIGCONT)
        process.finish()
        others_are_served(rig, victim, order)
        check(domain_of(rig, victim.process.pid) == known, f"{order}: the victim was dropped")
    wait_for_traffic([steady])
    figures = steady.finish()
    check(figures["deaths"] == 0 and figures["refused"] == 0, f"a client noticed: {figures}")
    for process in (server.process, victim.process):
        process.kill()
    rig.check_nothing_left()


def modes_are_right(rig):
    """Of what is in the run directory, whatever the umask; and root's is open to others as far as it has to be."""
    directory = os.path.join(rig.directory, "modes")
    old = os.umask(0)
    try:
        rig.output([rig.build.sluiced, f"--dir={directory}", "--policy=none"], preload=False)
    finally:
        os.umask(old)
    root = os.geteuid() == 0
    modes = {name: os.stat(os.path.join(directory, name)).st_mode & 0o7777 for name in ("", *os.listdir(directory))}
    rig.output([rig.build.sluice, "stop", f"--dir={directory}"], preload=False)
    expected = {"": 0o755 if root else 0o700, "coordinator.sock": 0o666 if root else 0o600, "lock": 0o600, "log": 0o600}
    check(modes == expected, f"the modes are { {n: oct(m) for n, m in modes.items()} }")


def everything(rig):
    modes_are_right(rig)
    hostile_clients(rig)


run(everything, seconds=220)
