#!/usr/bin/env python3
"""Each system call that the shim makes fails once, wherever it is made: programs are refused something, as Linux would,
or talk through the kernel. None crashes, hangs or loses a byte, and the next attempt works.

What is run is inject/subject.cpp, once for every call that one of its processes makes. `--all` takes every call of every
kind; without it, as CI does, a part of the kinds, and of each the first calls and then fewer and fewer.
"""
import concurrent.futures
import errno
import os
import pathlib
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "apps"))
from rig import Failure, check, run  # noqa: E402

AT_ONCE = 4
EVERY = 4  # of the kinds of calls, processes and programs that --all has; which ones follows from --seed
SECONDS = 60  # for one run; its processes have watchdogs of their own
MEMORY = ("memfd_create ENOMEM", "ftruncate ENOSPC", "mmap ENOMEM", "seal EBUSY", "dup_high EMFILE", "dup_low EMFILE",
          "eventfd2 EMFILE", "socket EMFILE", "socketpair ENFILE", "sendmsg ENOBUFS", "recvmsg ENOMEM",
          "epoll_create1 EMFILE", "epoll_add ENOSPC", "inotify_init1 EMFILE", "pidfd_open EMFILE", "pipe2 EMFILE",
          "openat ENFILE", "clone EAGAIN")
INTERRUPTED = ("futex EINTR", "futex_waitv EINTR", "ppoll EINTR", "epoll_pwait EINTR", "epoll_pwait2 EINTR",
               "poll EINTR", "read EINTR", "write EINTR", "readv EINTR", "writev EINTR", "sendmsg EINTR", "recvmsg EINTR",
               "sendto EINTR", "recvfrom EINTR", "connect EINTR", "accept4 EINTR", "splice EINTR")
NOT_NOW = ("futex EAGAIN", "futex_waitv EAGAIN", "sendmsg EAGAIN", "recvmsg EAGAIN", "sendto EAGAIN", "recvfrom EAGAIN")
SHORT = ("read", "write", "readv", "writev", "sendto", "recvfrom", "sendmsg", "recvmsg", "splice")
# What no program of subject.cpp calls itself on a blocking descriptor: an EINTR of these is the shim's to deal with.
ONLY_THE_SHIM_S = ("futex", "futex_waitv", "epoll_pwait2", "splice", "mmap", "memfd_create")
ROLES = {"pipe": ("client", "child"), "pipe_exec": ("client", "program"), "fork": ("server", "client", "child"),
         "fork_client": ("server", "client", "child"), "exec": ("server", "program"), "spawn": ("server", "program"),
         "pass": ("server", "worker", "client")}
# A coordinator that is silent when a process forks: its child has no connections (docs/divergences.md).
FORKING = ("fork", "fork_client", "exec", "spawn")
# The helper that carries a connection over exec may lose it when it is short of something (docs/divergences.md).
CARRIED = ("exec", "spawn")
FEWER = ("tcp", "epoll", "records", "rights", "fork", "exec", "spawn", "pass", "pipe")


class Sweep:
    def __init__(self, rig):
        self.rig = rig
        self.runs = self.refusals = self.resets = 0
        self.lock = threading.Lock()
        folder = os.path.join(rig.options.build, "tests", "faults")
        self.inject, self.subject = (os.path.join(folder, name) for name in ("inject", "subject"))

    def once(self, scenario, role, call, how, nth):
        """Whether there was such a call."""
        strict = ["--strict"] if call in ONLY_THE_SHIM_S else []
        what = "--short" if how == "short" else f"--error={getattr(errno, how)}"
        helpers = ["--no-helpers"] if scenario in CARRIED else []
        argv = [self.inject, f"--call={call}", what, f"--nth={nth}", f"--role={role}", *helpers, "--", self.subject,
                scenario, *strict]
        told = f"{scenario}, {role}: {call} {how} at the {nth}. call"
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   env=self.rig.environment(), stdin=subprocess.DEVNULL)
        try:
            output = process.communicate(timeout=SECONDS)[0]
        except subprocess.TimeoutExpired:
            raise Failure(f"{told}: some process does not end") from None
        check(process.returncode == 0, f"{told}: {output[-1500:]}")
        *_, result, count = output.strip().splitlines()
        words = result.split()
        with self.lock:
            self.runs += 1
            self.refusals += int(words[3])
            self.resets += int(words[5])
        return int(count.split()[1]) >= nth

    def every(self, scenario, role, call, how):
        nth = 1
        while self.once(scenario, role, call, how, nth):
            nth += 1 if self.rig.options.all or nth < 3 else nth
            if not self.rig.options.all and nth > 12:
                break


def failing_calls(rig):
    sweep = Sweep(rig)
    subjects = subprocess.run([sweep.subject], capture_output=True, text=True).stdout.split()
    wanted = rig.options.only
    jobs = []
    for scenario in subjects if rig.options.all else FEWER:
        for role in ROLES.get(scenario, ("server", "client")):
            for word in (*MEMORY, *INTERRUPTED, *NOT_NOW, *(f"{call} short" for call in SHORT)):
                if word in NOT_NOW and "msg" in word and scenario in FORKING:
                    continue
                if (scenario, role) == ("pass", "worker") and word in ("socket EMFILE", "dup_high EMFILE"):
                    continue  # a connection at its end, which cannot be told from one that was (docs/divergences.md)
                if all(part in f"{scenario} {role} {word}" for part in wanted):
                    jobs.append((scenario, role, *word.split()))
    if not rig.options.all and not wanted:
        jobs = jobs[rig.options.seed % EVERY::EVERY]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {pool.submit(sweep.every, *job): job for job in jobs}
        failures = []
        for future in concurrent.futures.as_completed(futures):
            try:
                future.result()
            except Failure as failure:
                failures.append(str(failure))
                print(f"FAILED: {failure}", flush=True)
                if not rig.options.go_on:
                    pool.shutdown(cancel_futures=True)
                    break
    print(f"{sweep.runs} runs, {sweep.refusals} calls refused, {sweep.resets} resets")
    check(not failures, f"{len(failures)} failures")
    check(sweep.runs > len(jobs), "nothing was made to fail")
    rig.check_nothing_left()


def options(parser):
    parser.add_argument("--all", action="store_true", help="every call of every kind in every program")
    parser.add_argument("--go-on", action="store_true", help="after a failure")
    parser.add_argument("--only", action="append", default=[], help="only runs whose name contains this")


run(failing_calls, seconds=3000, options=options)
