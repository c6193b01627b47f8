"""What `sluice bench requests` is asked, and how the answers are drawn: for docs/queues.md and for reports."""

import json
import signal
import subprocess

from plot import Plot
from processes import Failure

KINDS = ("divided", "shared")
WITH_AUTO = (*KINDS, "auto")
COLOURS = {"divided": "#0b6e99", "shared": "#c4501b", "auto": "#4a8f3c"}
# The questions, and the options that answer them.
QUESTIONS = {
    "depth": ["--clients=1", "--depth=1,2,...,64"],
    "active": ["--clients=1,2,4,...,256"],
    "idle": ["--clients=1,10,100,1000", "--active=1"],
    "flooder": ["--clients=2,8", "--flooders=1"],
    "asleep": ["--clients=1", "--poll=adaptive"],
    "turns": ["--by-turns", "--clients=1,4,16,32,64,128,256,512,1024"],
    "turns-few": ["--by-turns", "--clients=1024", "--active=2,8,16,32,48,64,128,512"],
    "turns-flooder": ["--by-turns", "--flooders=1", "--clients=2,4,16,32,64,128,256,512,1024"],
}
CASES = {"depth": 7, "active": 9, "idle": 4, "flooder": 2, "asleep": 1, "turns": 9, "turns-few": 8, "turns-flooder": 9}
START_SECONDS = 0.5  # of a coordinator and its clients
# The x axis, the y axis and the titles.
PLOTS = {
    "depth": ("depth", "requests_per_s", ("One client", "requests under way", "requests/s")),
    "active": ("active", "requests_per_s", ("All clients active, on one CPU", "clients", "requests/s")),
    "idle": ("clients", "p50_us", ("One active client among idle ones", "registered clients", "round trip, p50 us")),
    "turns": ("clients", "p50_us", ("Clients that speak in turn", "clients", "round trip, p50 us")),
    "turns-few": ("active", "p50_us", ("Of 1,024 clients some speak, in turn", "clients that speak", "round trip, p50 us")),
    "turns-flooder": ("clients", "p50_us", ("Clients that speak in turn, and one that floods", "clients", "round trip, p50 us")),
}


def kinds_of(name):
    return WITH_AUTO if name.startswith("turns") else KINDS


def estimate(name, rounds, seconds):
    return CASES[name] * len(kinds_of(name)) * rounds * (1.1 * seconds + START_SECONDS)


def measure(sluice, name, rounds, seconds, file):
    """Writes rows to the file. After an interrupt, those that are there; it goes on to the caller."""
    process = subprocess.Popen([sluice, "bench", "requests", *QUESTIONS[name], f"--queues={','.join(kinds_of(name))}", f"--rounds={rounds}",
                                f"--seconds={seconds}", f"--json={file}"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _, complaints = process.communicate()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        if not process.stderr.closed:  # it had just ended
            process.communicate()
        process.wait()
        raise
    if process.returncode != 0:
        raise Failure(f"bench requests: {complaints.strip().splitlines()[-1:]}")


def rows_in(file):
    with open(file) as rows:
        return json.load(rows)


def plot(name, rows):
    x, y, titles = PLOTS[name]
    lines = {kind: [(row[x], row[y]) for row in rows if row["queues"] == kind and row[y] > 0] for kind in kinds_of(name)}
    return Plot(lines, COLOURS, titles).svg()
