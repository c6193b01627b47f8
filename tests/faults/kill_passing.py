#!/usr/bin/env python3
"""Who passes connections, who is to take them, the other side and the coordinator die on the way."""
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "apps"))
from rig import check, run  # noqa: E402

PASSER = pathlib.Path(__file__).resolve().parent / "passer.py"
ENDS = ("end", "ConnectionResetError")


class Play:
    """A master, a worker and a client, and one connection that the master has accepted."""

    def __init__(self, rig, name):
        self.rig = rig
        path = os.path.join(rig.directory, name)
        self.master = rig.script(PASSER, "master", path)
        port = self.master.line()
        self.worker = rig.script(PASSER, "worker", path)
        self.worker.line()
        self.master.ask("meet")
        self.client = rig.script(PASSER, "client", port)
        self.client.line()
        self.client.ask("connect")
        self.master.ask("accept")

    def use(self):
        if self.rig.coordinator.running():
            self.rig.audit()
        self.client.ask("say hello")
        answer = self.worker.ask("echo")
        check(answer == "hello", f"the worker hears {answer}")
        answer = self.client.ask("hear")
        check(answer == "hello", f"the client hears {answer}")

    def end(self):
        for process in (self.master, self.worker, self.client):
            if process.running():
                process.kill()


def the_master_dies(rig):
    play = Play(rig, "master")
    play.master.ask("send")
    play.master.kill()
    play.worker.ask("take")
    play.use()
    play.worker.ask("drop")
    check(play.client.ask("hear") == "end", "the client hears no end")
    play.end()


def the_worker_dies_before_it_takes(rig):
    play = Play(rig, "early")
    play.master.ask("send")
    play.master.ask("drop")
    play.worker.kill()
    play.master.ask("forget")
    answer = play.client.ask("hear")
    check(answer in ENDS, f"the client hears {answer}")
    play.end()


def the_worker_dies_with_it(rig):
    for keeps in (False, True):
        play = Play(rig, f"late-{keeps}")
        play.master.ask("send")
        if not keeps:
            play.master.ask("drop")
        play.worker.ask("take")
        play.use()
        play.worker.kill()
        if keeps:
            play.master.ask("drop")
        answer = play.client.ask("hear")
        check(answer in ENDS, f"the client hears {answer}")
        play.end()


def the_client_dies(rig):
    play = Play(rig, "client")
    play.master.ask("send")
    play.master.ask("drop")
    play.client.ask("say hello")
    play.client.kill()
    play.worker.ask("take")
    check(play.worker.ask("echo") == "hello", "what was sent is lost")
    answer = play.worker.ask("echo")
    check(answer in ENDS + ("BrokenPipeError",), f"the worker hears {answer}")
    play.end()


def the_coordinator_dies(rig, number):
    taken, waits, kept = (Play(rig, f"{name}-{number}") for name in ("taken", "waits", "kept"))
    for play in (taken, waits):
        play.master.ask("send")
        play.master.ask("drop")
    taken.worker.ask("take")
    taken.use()
    rig.coordinator.kill()
    taken.use()
    answer = kept.master.ask("try_to_send")
    check(answer == ("done" if rig.native else "ENOBUFS"), f"passing gives {answer}")
    rig.start_coordinator()
    taken.use()
    if not rig.native:
        kept.master.ask("send")  # by a carrier
    kept.master.ask("drop")
    kept.worker.ask("take")
    kept.use()
    kept.end()
    # What was on its way is lost with the coordinator (docs/divergences.md), and both sides hear it.
    waits.worker.ask("take")
    if rig.native:
        waits.use()
    else:
        answer = waits.worker.ask("echo")
        check(answer in ENDS, f"the worker hears {answer}")
        waits.worker.ask("drop")
        answer = waits.client.ask("hear")
        check(answer in ENDS, f"the client hears {answer}")
    for play in (taken, waits):
        play.client.ask("connect")
        play.master.ask("accept")
        play.master.ask("send")
        play.master.ask("drop")
        play.worker.ask("take")
        play.use()
        play.end()


def thousands(rig):
    play = Play(rig, "thousands")
    play.master.ask("drop")
    before = None
    for rounds in range(4):
        orders = [(process, order) for process, order in
                  ((play.master, "serve 1500"), (play.worker, "serve 1500"), (play.client, "use 1500"))]
        for process, order in orders[:2]:
            process.order(order)
        last = play.client.ask("use 1500", seconds=60)
        figures = [play.master.line(), play.worker.line(), last]
        check("something" not in last, last)
        figures = [tuple(map(int, line.split())) for line in figures]
        print(figures)
        if rounds == 1:
            before = figures
    for (fds, memory), (fds_before, memory_before) in zip(figures, before):
        check(fds <= fds_before + 2, f"descriptors grow from {fds_before} to {fds}")
        check(memory <= memory_before + (8 << 20), f"memory grows from {memory_before} to {memory}")
    if not rig.native:
        check(rig.status()["passed_total"] >= 6000, "not passed in memory")
    play.end()


def passing(rig):
    for part in (the_master_dies, the_worker_dies_before_it_takes, the_worker_dies_with_it,
                 the_client_dies, thousands):
        print(part.__name__)
        part(rig)
        rig.check_nothing_left()
    for number in range(3):
        the_coordinator_dies(rig, number)
        rig.check_nothing_left()


run(passing, seconds=100)
