#!/usr/bin/env python3
"""A process dies just before and just after every labelled edge of every ring and every message of the protocol that it
comes to: its peers get what was published and then an end, nobody hangs, and nothing of the dead is left.

The coordinator dies at each of its own: conversations that have begun are had to their end, and the next coordinator
serves those that follow. With the library and the coordinator that shm/death_point.h is compiled into.
"""
import concurrent.futures
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "apps"))
from rig import Failure, check, run, wait_until  # noqa: E402

AT_ONCE = 4
SECONDS = 60
# In which of its visits to a place a process dies. Most places are only come to a few times.
VISITS = (1, 2, 7)
EVERY = 10  # of the deaths that --all has; has nothing in common with the number of visits
SCENARIOS = {"tcp": ("server", "client"), "epoll": ("server", "client"), "rights": ("server", "client"),
             "records": ("server", "client"), "fork": ("server", "client"), "pass": ("server", "worker", "client"),
             "exec": ("server",), "pipe": ("client",)}
EDGES = {"R0", "R1", "R2", "S0", "S1", "E0", "F1", "channel P0", "channel Q1"}
# A carrier that ends while there is no coordinator is not missed by the next one (docs/divergences.md).
UNDER_ORPHANS = [scenario for scenario in SCENARIOS if scenario != "exec"]
# What is in a message is a ticket of the coordinator's, and of those nothing is heard until the next one.
WITHOUT_COORDINATOR = [scenario for scenario in UNDER_ORPHANS if scenario != "pass"]
MOST_LOOKS = 40  # a pipe is often read by the kernel alone


class Deaths:
    def __init__(self, rig):
        self.rig = rig
        folder = os.path.join(rig.options.build, "tests", "faults")
        self.subject = os.path.join(folder, "subject")
        rig.build.library = os.path.join(folder, "libsluice-deaths.so")
        rig.build.sluiced = os.path.join(folder, "sluiced-deaths")
        self.lock = threading.Lock()
        self.runs = self.killed = 0

    def play(self, scenario, *options):
        process = subprocess.Popen([self.subject, scenario, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, stdin=subprocess.DEVNULL, env=self.rig.environment())
        try:
            output = process.communicate(timeout=SECONDS)[0]
        except subprocess.TimeoutExpired:
            raise Failure(f"{scenario} {options}: does not end") from None
        check(process.returncode == 0, f"{scenario} {options}: {output[-1500:]}")
        return output

    def places(self, scenario):
        """(role, place) of all that the processes of a scenario come to."""
        folder = os.path.join(self.rig.directory, f"places-{scenario}")
        os.mkdir(folder)
        found = set()
        for _ in range(MOST_LOOKS):
            self.play(scenario, f"--log={folder}")
            found |= {(role, place) for role in SCENARIOS[scenario] for place in self.read(os.path.join(folder, role))}
            if scenario != "pipe" or edges_of(found) >= {"channel P0", "channel Q1"}:
                break
        shutil.rmtree(folder)
        return sorted(found)

    @staticmethod
    def read(path):
        if not os.path.exists(path):
            return []
        with open(path) as file:
            return sorted({line.strip() for line in file})

    def die(self, scenario, role, place, visit):
        output = self.play(scenario, "--mortal", f"--die={role}:{place},{visit}")
        with self.lock:
            self.runs += 1
            self.killed += "killed 0" not in output


def edges_of(places):
    return {place.rpartition(".")[0] for _, place in places}


def some_of(jobs, rig):
    """Another part of them with another --seed."""
    return jobs if rig.options.all else jobs[rig.options.seed % EVERY::EVERY]


def applications_die(deaths):
    seen = set()
    jobs = []
    for scenario in SCENARIOS:
        places = deaths.places(scenario)
        seen |= edges_of(places)
        visits = VISITS if not deaths.rig.options.all else range(1, 12)
        jobs += [(scenario, role, place, visit) for role, place in places for visit in visits]
    jobs = some_of(jobs, deaths.rig)  # of most places some visit in some scenario
    print(f"{len(seen)} places: {' '.join(sorted(seen))}")
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for future in [pool.submit(deaths.die, *job) for job in jobs]:
            future.result()
    print(f"{deaths.killed} deaths in {deaths.runs} runs")
    edges = EDGES | ({"U0", "V1"} if deaths.rig.options.queues == "noc" else {"M0", "N1"})
    check(seen >= edges, f"nobody came to {edges - seen}")
    check(deaths.killed > len(jobs) // 4, "few have died")
    deaths.rig.check_nothing_left(20)


def restart(rig, **environment):
    if rig.coordinator.running():
        rig.coordinator.kill()
    os.environ.update(environment)
    try:
        rig.start_coordinator()
    finally:
        for name in environment:
            del os.environ[name]


def coordinators_places(deaths, scenario):
    """Those that it comes to because of a scenario; `sluice status` and `stop` (packets 6 and 64) do not matter."""
    log = os.path.join(deaths.rig.directory, f"coordinator-{scenario}")
    restart(deaths.rig, SLUICE_DEATH_LOG=log)
    deaths.play(scenario)
    return [place for place in deaths.read(log) if not place.rpartition(".")[0].endswith(("-6", "-64"))]


def coordinator_dies(deaths, again):
    """`again`: whoever looks after it begins it again at once; else there is none until all is over."""
    rig = deaths.rig
    scenarios = UNDER_ORPHANS if again else WITHOUT_COORDINATOR
    jobs = some_of([(scenario, place) for scenario in scenarios for place in coordinators_places(deaths, scenario)], rig)
    died = 0
    for scenario, place in jobs:
        try:
            restart(rig, SLUICE_DEATH=f"{place},2")
        except Failure:
            if rig.coordinator.running() or rig.coordinator.status() != -signal.SIGKILL:
                raise
        # What needs the coordinator is refused, or at an end (docs/divergences.md); a plain conversation is whole.
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            both = [pool.submit(deaths.play, "tcp", "--orphaned"),
                    pool.submit(deaths.play, scenario, "--orphaned", "--mortal")]
            wait_until(lambda: all(one.done() for one in both) or (again and not rig.coordinator.running()), "they are done",
                       SECONDS)
            died += not rig.coordinator.running()
            if again:
                restart(rig)
        for one in both:
            try:
                one.result()
            except Failure as failure:
                raise Failure(f"{place} of {scenario}: {failure}") from None
        if not again:
            restart(rig)
        deaths.play(scenario)
    print(f"the coordinator has died in {died} of {len(jobs)} runs")
    check(died > len(jobs) // 4, "the coordinator has hardly died")
    rig.check_nothing_left(20)


def deaths_at_edges(rig):
    rig.coordinator.kill()
    deaths = Deaths(rig)
    rig.start_coordinator()
    applications_die(deaths)
    coordinator_dies(deaths, again=True)
    coordinator_dies(deaths, again=False)


def options(parser):
    parser.add_argument("--all", action="store_true", help="every place, in every visit")


run(deaths_at_edges, seconds=3000, options=options)
