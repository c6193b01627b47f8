"""What a request costs a server's CPU, in ticks of the time stamp counter: over the kernel, and over Sluice.

From CPU time, since the counters of perf are often not to be had in a virtual machine. Time in which a server spins for the next
request is in it, so the least of several numbers of connections is told.
"""

import os
import re
import tempfile
from pathlib import Path

from compare import loads
from processes import two_cores
from servers import SERVERS
from ways import WAYS

TICK = os.sysconf("SC_CLK_TCK")


def descendants(root):
    """Process ids below that one."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, queue = [], [root]
    while queue:
        queue += (below := children.get(queue.pop(), []))
        found += below
    return found


def cpu_seconds(program):
    """User and system time of all our processes of that name."""
    user = system = 0
    for pid in descendants(os.getpid()):
        try:
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        except OSError:
            continue
        if name.partition("(")[2] == program:
            user += int(rest.split()[11])
            system += int(rest.split()[12])
    return user / TICK, system / TICK


def clock_hz():
    """Of the time stamp counter, as the kernel says it."""
    return float(re.search(r"cpu MHz\s*:\s*([\d.]+)", Path("/proc/cpuinfo").read_text())[1]) * 1e6


class Counted:
    """A server whose load also says what CPU time it took."""

    def __init__(self, server, program):
        self._server, self._program = server, program
        self.command = server.command
        self.seconds = (0.0, 0.0)

    def load(self, *arguments):
        before = cpu_seconds(self._program)
        result = self._server.load(*arguments)
        self.seconds = tuple(after - first for first, after in zip(before, cpu_seconds(self._program)))
        return result


def measure(build, app, way, connections, seconds):
    """A row for each number of connections."""
    server = SERVERS[app]()
    counted = Counted(server, app)
    rows = []
    with tempfile.TemporaryDirectory() as directory, WAYS[way](build, directory, ()) as opened:
        os.chmod(directory, 0o755)
        measured = loads(counted, server.variants[0], opened, directory, connections, seconds, two_cores(), None)
        for number, (load, (accelerated, _)) in zip(connections, measured):
            requests = load.requests_per_s * seconds
            user, system = (part * clock_hz() / requests for part in counted.seconds)
            rows.append({"app": app, "way": way, "connections": number, "accelerated": accelerated, "errors": load.errors,
                         "requests_per_s": load.requests_per_s, "user_cycles": user, "system_cycles": system})
    return rows
