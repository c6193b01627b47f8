#!/usr/bin/env python3
"""What is in shared memory: nothing of a connection that is over, and no pointers of anybody."""
import errno
import os
import re
import struct
import sys

from echo import EchoClient, EchoServer, alive, check, run, wait_for_traffic, wait_until

SECRET = b"Whoever reads this is the wrong one. "
LEAST_POINTER = 1 << 40  # below are sizes and ids; nothing is mapped there but programs that are not relocatable

SERVER = """
import os, socket, sys
where = sys.argv[1]
s = socket.socket(socket.AF_UNIX if where[0] == "/" else socket.AF_INET)
s.bind(where if where[0] == "/" else ("127.0.0.1", 0))
s.listen()
print(where if where[0] == "/" else s.getsockname()[1], flush=True)
held = []
for line in sys.stdin:
    if line == "accept\\n": held.append(s.accept()[0])
    elif line.startswith("read"):
        left = int(line.split()[1])
        while left: left -= len(held[-1].recv(min(left, 100000)))
    else:
        for c in held: c.close()
        held.clear()
    print("done", flush=True)
"""
CLIENT = """
import socket, sys, threading
where, text = sys.argv[1], sys.argv[2].encode()
for line in sys.stdin:
    if line == "connect\\n":
        c = socket.socket(socket.AF_UNIX if where[0] == "/" else socket.AF_INET)
        c.connect(where if where[0] == "/" else ("127.0.0.1", int(where)))
    elif line.startswith("write"):
        n = int(line.split()[1])
        threading.Thread(target=c.sendall, args=((text * (n // len(text) + 1))[:n],)).start()
    else: c.close()
    print("done", flush=True)
"""


def mappings(pid):
    with open(f"/proc/{pid}/maps") as file:
        for line in file:
            words = line.split(maxsplit=5)
            begin, end = (int(word, 16) for word in words[0].split("-"))
            yield begin, end, words[5].strip() if len(words) > 5 else ""


def regions(pid):
    """{inode: (kind, descriptor)} of what a process has mapped of shared memory."""
    found = {}
    for begin, end, name in mappings(pid):
        kind = re.match(r"/memfd:sluice-(\w+)", name)
        if not kind:
            continue
        try:
            fd = os.open(f"/proc/{pid}/map_files/{begin:x}-{end:x}", os.O_RDONLY)
        except FileNotFoundError:
            continue  # it has just been unmapped
        inode = os.fstat(fd).st_ino
        if inode in found:
            os.close(fd)
        else:
            found[inode] = kind[1], fd
    return found


def contents(fd):
    """What is there: (offset, bytes). Holes stay holes."""
    at = 0
    while True:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin, os.pread(fd, at - begin, begin)


def regions_of_all(pids):
    found = {}
    for pid in pids:
        for inode, (kind, fd) in regions(pid).items():
            if inode in found:
                os.close(fd)
            else:
                found[inode] = kind, fd
    return found


def count(text, pids):
    """How often it is in the memory that these share."""
    found = regions_of_all(pids)
    n = sum(data.count(text) for _, fd in found.values() for _, data in contents(fd))
    for _, fd in found.values():
        os.close(fd)
    return n


def nothing_is_left(rig):
    for unix in (False, True):
        for size, reads in ((len(SECRET), False), (40_000, True), (600_000, True), (600_000, False)):
            where = os.path.join(rig.directory, f"left.{size}.{reads}") if unix else "tcp"
            server = rig.start([sys.executable, "-c", SERVER, where], talks=True)
            client = rig.start([sys.executable, "-c", CLIENT, server.line(), SECRET.decode()], talks=True)
            pids = server.pid, client.pid
            what = f"{size} bytes, {'read' if reads else 'not read'}, {'unix' if unix else 'tcp'}"
            client.ask("connect")
            client.ask(f"write {size}")
            server.ask("accept")
            wait_until(lambda: count(SECRET[:-1], pids) > 0, f"{what}: it comes to be in shared memory")
            if reads:
                server.ask(f"read {size}")
            server.ask("close")
            client.ask("close")
            # The next one, which takes what the first had, if that was over by then.
            client.ask("connect")
            client.ask("write 1")
            server.ask("accept")
            wait_until(lambda: count(SECRET[:-1], pids) == 0, f"{what}: nothing is left of it")
            client.kill()
            server.kill()


def no_pointers(rig):
    servers = [EchoServer(rig, "epoll"), EchoServer(rig, "blocking", workers=2)]
    clients = [EchoClient(rig, server.port, connections=3, pause_us=100) for server in servers]
    wait_for_traffic(clients)
    pids = [pid for server in servers for pid in (server.process.pid, *server.pids())] + [c.pid for c in clients]
    pids = sorted({pid for pid in [*pids, rig.coordinator.pid] if alive(pid)})
    ranges = sorted({(begin, end) for pid in pids for begin, end, _ in mappings(pid) if begin >= LEAST_POINTER})
    found = regions_of_all(pids)
    kinds = {kind for kind, _ in found.values()}
    check({"pair", "client", "replies", "directory"} <= kinds, f"only {kinds} are seen")
    for kind, fd in found.values():
        for at, data in contents(fd):
            for i, (word,) in enumerate(struct.iter_unpack("=Q", data)):
                if word < LEAST_POINTER or word >> 47:
                    continue
                for begin, end in ranges:
                    check(not begin <= word < end, f"a pointer in a region {kind} at {at + 8 * i:#x}: {word:#x}")
        os.close(fd)
    for client in clients:
        client.finish()
    for server in servers:
        server.process.kill()


def everything(rig):
    if os.geteuid() != 0:
        print("opening another process's memory takes root")
        sys.exit(77)
    if rig.native:
        return
    nothing_is_left(rig)
    no_pointers(rig)
    rig.check_nothing_left()


run(everything, seconds=100)
