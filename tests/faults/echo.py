"""Echo servers and the clients that check them, for the tests of this folder."""
import json
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "apps"))
from rig import (Failure, alive, anonymous_bytes, check, children_of, cpu_ticks,  # noqa: E402,F401
                 descriptors_of, run, shared_memory_bytes, wait_until)

STALLED_MS = 8000


def program(rig, name):
    return os.path.join(rig.build.directory, "tests", "faults", name)


class EchoServer:
    count = 0

    def __init__(self, rig, accept="epoll", workers=0, port=0, preload=True):
        if rig.options.unix and port == 0:
            EchoServer.count += 1
            port = os.path.join(rig.directory, f"echo.{EchoServer.count}")
        self.process = rig.start([program(rig, "echo_server"), f"--accept={accept}",
                                  f"--workers={workers}", f"--port={port}"], preload, talks=True)
        self.port = self.process.line().strip()  # or path

    def pids(self):
        return children_of(self.process.pid) or [self.process.pid]

    def kill_one(self, rig):
        """Any of its processes; one that is dead already may just have been waited for."""
        while True:
            try:
                return os.kill(rig.random.choice(self.pids()), signal.SIGKILL)
            except ProcessLookupError:
                continue

    def descriptors(self):
        return {(pid, fd): what for pid in self.pids()
                for fd, what in descriptors_of(pid).items()}


class EchoClient:
    """Busy connections; see echo_client.cpp."""

    def __init__(self, rig, port, preload=True, connections=4, messages=0, peer_may_die=False,
                 pause_us=0):
        argv = [program(rig, "echo_client"), port, f"--connections={connections}",
                f"--messages={messages}", f"--pause-us={pause_us}"]
        argv += ["--peer-may-die"] if peer_may_die else []
        self.process = rig.start(argv, preload, talks=True)
        self.pid = self.process.pid

    def figures(self):
        return self._checked(self.process.ask("?"))

    def finish(self):
        return self._checked(self.process.finish(30).strip().splitlines()[-1])

    def _checked(self, line):
        check(line.startswith("{"), f"echo_client {self.pid}: {line}")
        figures = json.loads(line)
        check(figures["stalled_ms"] < STALLED_MS, f"echo_client {self.pid} hangs: {figures}")
        return figures


class ManyConnections:
    def __init__(self, rig, port, preload=True):
        self.process = rig.start([program(rig, "many_connections"), port], preload, talks=True)
        self.pid = self.process.pid

    def order(self, what, seconds=30):
        answer = self.process.ask(what, seconds)
        check(answer == "done", f"{what}: {answer}")


def wait_for_traffic(clients, seconds=STALLED_MS / 1000 + 2):
    """Until every one of the clients has had something back since now."""
    before = {client: client.figures()["bytes"] for client in clients}
    wait_until(lambda: all(client.figures()["bytes"] > before[client] for client in clients),
               "bytes for every client", seconds)


def wait_random(rig, at_most_seconds):
    time.sleep(rig.random.uniform(0, at_most_seconds))
