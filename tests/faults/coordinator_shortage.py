#!/usr/bin/env python3
"""The coordinator has no descriptors left, or no memory, or is told so by each call that it makes: connections that exist
go on, new ones are made by the kernel, and in shared memory again as soon as there is enough."""
import errno
import os
import resource

from echo import (EchoClient, EchoServer, ManyConnections, check, children_of, descriptors_of, run, wait_for_traffic,
                  wait_until)

NEWCOMERS = 6
CALLS = ("memfd_create ENOMEM", "mmap ENOMEM", "ftruncate ENOSPC", "eventfd2 EMFILE", "accept4 EMFILE", "sendmsg ENOBUFS",
         "recvmsg ENOMEM", "epoll_add ENOSPC", "pidfd_open EMFILE", "seal ENOMEM", "socket EMFILE", "dup_high EMFILE",
         "openat ENFILE", "epoll_wait EINTR", "recvmsg EINTR", "sendmsg EINTR", "write EINTR", "accept4 EINTR")
MOST_FAILURES = 4  # of each, for a newcomer; a few calls are all that it costs


class Company:
    """Servers and clients that meet while nothing is short, and newcomers while something is."""

    def __init__(self, rig):
        self.rig = rig
        self.servers = [EchoServer(rig, "epoll"), EchoServer(rig, "blocking")]
        self.steady = [EchoClient(rig, server.port, connections=2, messages=0, pause_us=200) for server in self.servers]
        wait_for_traffic(self.steady)

    def newcomer(self):
        """Connects to all, by the kernel or not; a byte goes there and back on each."""
        for server in self.servers:
            client = ManyConnections(self.rig, server.port)
            client.order("sequence 2")
            client.process.finish()

    def comes_back(self):
        def accelerated():
            before = self.rig.accelerated()
            self.newcomer()
            return self.rig.accelerated() > before
        if not self.rig.native:
            wait_until(accelerated, "newcomers' connections are accelerated")

    def end(self):
        for client in self.steady:
            figures = client.finish()
            check(figures["deaths"] == 0 and figures["refused"] == 0, f"a steady client noticed: {figures}")
        for server in self.servers:
            server.process.kill()
        self.rig.check_nothing_left()


def no_descriptors(rig):
    company = Company(rig)
    pid = rig.coordinator.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(descriptors_of(pid)) + 1
    for more in (0, 1, 2, 4, 7):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + more, limits[1]))
        for _ in range(2):
            company.newcomer()
        wait_for_traffic(company.steady)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        company.comes_back()
    company.end()


def a_call_fails(rig, inject, call, error):
    """The 1st, 2nd, ... call of that kind from when a newcomer comes."""
    rig.start_coordinator(under=[inject, f"--call={call}", f"--error={getattr(errno, error)}", "--control", "--"])
    company = Company(rig)
    hit = 0
    for nth in range(1, MOST_FAILURES + 1):
        rig.coordinator.ask(str(nth))
        company.newcomer()
        seen = int(rig.coordinator.ask("0"))
        hit += seen >= nth
        wait_for_traffic(company.steady)
        check(children_of(rig.coordinator.pid), f"{call} {error}: sluiced has died: {rig.coordinator.log()[-1000:]}")
        company.comes_back()
    company.end()
    os.kill(children_of(rig.coordinator.pid)[0], 15)
    rig.coordinator.finish()
    return hit


def shortage(rig):
    no_descriptors(rig)
    if rig.native:
        return
    rig.coordinator.kill(15)
    inject = os.path.join(rig.options.build, "tests", "faults", "inject")
    hits = {}
    for word in CALLS:
        rig._descriptors = range(10_000)  # of another coordinator each time, which has its own
        hits[word] = a_call_fails(rig, inject, *word.split())
    print(f"calls that have failed: {hits}")
    check(sum(hits.values()) >= 20, "hardly any call has failed")
    rig.start_coordinator()


run(shortage, seconds=180)
