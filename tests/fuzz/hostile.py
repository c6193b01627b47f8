#!/usr/bin/env python3
"""Hostile processes against servers, their honest clients, and two that have nothing to do with them.

Everything honest checks every byte that it gets back, and may lose no connection. The coordinator, the servers and the
honest clients have to live and go on, also under AddressSanitizer, and in the end nothing may be left in the books.
"""
import glob
import json
import os
import pathlib
import signal
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "faults"))
import sanitizer  # noqa: E402
from echo import EchoClient, EchoServer, Failure, alive, check, run, wait_for_traffic, wait_until  # noqa: E402

SCENES = 13  # of hostile.cpp
APP_SECONDS = 2
NOBODY = 65534
SLACK_SECONDS = 120


def options():
    """Those of this test, taken out of the line before the rig sees it."""
    seconds, seed, tools, kept = 15.0, 1, None, []
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        if name == "--seconds":
            seconds = float(value)
        elif name == "--tools":
            tools = value
        else:
            if name == "--seed":
                seed = int(value)
            kept.append(word)
    sys.argv[1:] = kept
    return seconds, seed, tools or os.path.join(kept[0], "tests", "fuzz")


SECONDS, SEED, TOOLS = options()


class Honest:
    """Servers of each kind with clients that the hostile processes do not know of; and a pair of its own."""

    def __init__(self, rig):
        self.servers = [EchoServer(rig, accept="epoll"), EchoServer(rig, accept="blocking"), EchoServer(rig, accept="fork"),
                        EchoServer(rig, accept="epoll", port=os.path.join(rig.directory, "victim"))]
        self.aside = EchoServer(rig)
        self.clients = [EchoClient(rig, s.port, connections=2, messages=200, pause_us=500) for s in [*self.servers, self.aside]]
        self.pids = [s.process.pid for s in [*self.servers, self.aside]]
        wait_for_traffic(self.clients)

    def check(self, rig):
        check(rig.coordinator.running(), f"sluiced has died: {rig.coordinator.log()[-3000:]}")
        for pid in self.pids:
            check(alive(pid), f"a server has died ({pid})")
        wait_for_traffic(self.clients)
        rig.status()

    def finish(self):
        for client in self.clients:
            figures = client.finish()
            check(figures["deaths"] == 0, f"an honest client lost connections: {figures}")


def carriers_of_the_hostile():
    """What the shim forks to serve what is passed on or kept over exec has a session of its own."""
    program = os.path.join(TOOLS, "hostile_app").encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = pathlib.Path("/proc", pid, "cmdline").read_bytes()
        except OSError:
            continue
        if command.split(b"\0")[0] == program:
            yield int(pid)


def end_family(process):
    """What the hostile ones have forked belongs to their process group, but for carriers, which may have gone wrong as they have."""
    def gone():
        for pid in carriers_of_the_hostile():
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
            except (ProcessLookupError, ChildProcessError):
                pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
            while os.waitpid(-process.pid, os.WNOHANG)[0]:
                pass  # orphans are ours
        except (ProcessLookupError, ChildProcessError):
            pass
        try:
            os.killpg(process.pid, 0)
            return False
        except ProcessLookupError:
            return not any(carriers_of_the_hostile())
    wait_until(gone, "the hostile ones have ended", 30)


def no_complaints(rig):
    for path in glob.glob(os.path.join(rig.directory, "*.log")):
        if "hostile" in os.path.basename(path):
            continue  # what becomes of those is their own affair
        text = pathlib.Path(path).read_text(errors="replace")
        check("Sanitizer" not in text and "runtime error" not in text, f"{path}: {text[-4000:]}")


def the_honest_notice_nothing(rig):
    sanitized = sanitizer.load_first(rig)
    honest = Honest(rig)
    totals = {"rounds": 0, "packets": 0, "requests": 0, "writes": 0, "connections": 0, "applications": 0}
    end = time.monotonic() + SECONDS
    seed = SEED
    # A queue that a user's processes share ends with the first of them that spoils it, so those of another user try that.
    is_root = os.geteuid() == 0
    others_only = is_root and rig.options.queues in ("shared", "auto")
    while time.monotonic() < end:
        place = honest.servers[seed % len(honest.servers)].port
        port = place if place.isdigit() else honest.servers[0].port
        print(f"seed {seed}", flush=True)
        raw = rig.start([os.path.join(TOOLS, "hostile"), rig.run_dir, port, f"--seed={seed}", f"--rounds={SCENES}",
                         *([f"--uid={NOBODY}"] if is_root and (others_only or seed % 2 == 0) else [])],
                        preload=False, talks=True)
        app = rig.start([os.path.join(TOOLS, "hostile_app"), place, f"--seed={seed}"])
        try:
            wait_until(lambda: not app.running(), "", APP_SECONDS)
        except Failure:
            app.kill()  # it has tied itself up
        totals["applications"] += 1
        for name, count in json.loads(raw.line(60)).items():
            totals[name] += count
        raw.finish()
        end_family(raw)
        end_family(app)
        honest.check(rig)
        no_complaints(rig)
        seed += 1
    rig.audit()
    honest.finish()
    for server in [*honest.servers, honest.aside]:
        server.process.kill()
    rig.check_nothing_left()
    no_complaints(rig)
    met = is_root or rig.options.queues in ("divided", "noc")
    check(not met or totals["connections"] > 0 and totals["writes"] > 0, f"nobody was met: {totals}")
    print(f"seeds {SEED} to {seed - 1}, {'with' if sanitized else 'without'} sanitizers: {json.dumps(totals)}")


run(the_honest_notice_nothing, seconds=int(SECONDS) + SLACK_SECONDS)
