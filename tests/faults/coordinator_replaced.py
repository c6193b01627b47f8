#!/usr/bin/env python3
"""Whoever sleeps all the while that a coordinator dies hears that its peer has died: under the next one, or without any."""
import errno
import select
import signal
import socket
import sys

from echo import check, run
from raw_client import ANNOUNCE_PAIR, CHANNEL, CHANNEL_PASSED, RawClient

SERVER = """\
import socket
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
c = s.accept()[0]
c.send(b"x")
input()
"""
CLIENT = """\
import select, socket, sys
c = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
c.recv(1)
e = select.epoll()
e.register(c, select.EPOLLIN)
other = socket.create_server(("127.0.0.1", 0))
print("asleep soon", flush=True)
if sys.argv[2] == "epoll": e.poll()
elif sys.argv[2] == "poll": select.select([c, other], [], [])
print("end", c.recv(1), flush=True)
"""
# Has a connection that its peer, stopped, never sees, and a child that waits for it.
PARENT = """\
import os, select, socket, sys
c = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
c.send(b"x")
met = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
met.recv(1)
if os.fork() == 0:
    e = select.epoll()
    e.register(c, select.EPOLLIN)
    print("asleep soon", flush=True)
    if sys.argv[3] == "epoll": e.poll()
    try: print("end", c.recv(1), flush=True)
    except OSError as error: print(error.errno, flush=True)
    os._exit(0)
select.select([met], [], [])
"""
WAYS = ("read", "read", "epoll", "epoll", "poll", "poll")
PAIRS = len(WAYS)


def peers_death_is_heard_of(rig):
    after(rig, lambda: [restart(rig) for _ in range(2)])
    rig.check_nothing_left()
    after(rig, rig.coordinator.kill)
    rig.start_coordinator()
    for way in ("read", "epoll"):
        child_of_one_who_never_met(rig, way)
        rig.start_coordinator()
    what_is_kept_for_the_dead_is_closed(rig)


def what_is_kept_for_the_dead_is_closed(rig):
    """A process that has not come back to the next coordinator gets a channel, which may hold descriptors, and dies."""
    if rig.coordinator.running():
        rig.coordinator.kill()
    rig.start_coordinator()
    absent = rig.start(["sleep", "60"], preload=False)
    client = RawClient(rig.run_dir, rig.status()["protocol"])
    check(client.hello() == 0, "no hello")
    domain = client.domain + 1000
    client.send(ANNOUNCE_PAIR, domain=domain, value=1, value2=absent.pid)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.send(CHANNEL, [theirs.fileno()], domain=domain, value=1)
    check(client.wait_for(CHANNEL_PASSED)[0][1] == 0, "it is not kept")
    theirs.close()
    check(not select.select([ours], [], [], 0.2)[0], "it is closed too early")
    absent.kill()
    check(select.select([ours], [], [], 10)[0] and ours.recv(1) == b"", "it is not closed")
    client.end()


def child_of_one_who_never_met(rig, way):
    stopped, other = (rig.start([sys.executable, "-c", SERVER], talks=True) for _ in range(2))
    ports = [server.line() for server in (stopped, other)]
    stopped.send(signal.SIGSTOP)
    parent = rig.start([sys.executable, "-c", PARENT, *ports, way], talks=True)
    check(parent.line() == "asleep soon", "the child has not begun")
    rig.coordinator.kill()
    check(int(parent.line(10)) == errno.ECONNRESET, f"the child in {way} is told")
    parent.kill()
    for server in (stopped, other):
        server.kill()


def restart(rig):
    rig.coordinator.kill()
    rig.start_coordinator()


def after(rig, what):
    servers = [rig.start([sys.executable, "-c", SERVER], talks=True) for _ in range(PAIRS)]
    clients = [rig.start([sys.executable, "-c", CLIENT, server.line(), way], talks=True) for server, way in zip(servers, WAYS)]
    for client in clients:
        check(client.line() == "asleep soon", "the client has not begun")
    rig.check_accelerated(at_least=PAIRS)
    what()
    for server in servers:
        server.kill()
    for client, way in zip(clients, WAYS):
        line = client.line(10)
        check(line == "end b''", f"the client in {way} is told {line}")
        client.finish()


run(peers_death_is_heard_of, seconds=50)
