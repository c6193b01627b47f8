#!/usr/bin/env python3
"""sluice audit: says nothing of what is as it should be, and sees what is not."""
import json
import mmap
import os
import re
import subprocess
import sys

from commands import Commands, main

# A server that forks after it has accepted, and a client that does: both sides have relatives.
PAIR = """\
import os, socket
told, tell = os.pipe()
if os.fork() == 0:
    s = socket.create_server(("127.0.0.1", 0))
    os.write(tell, b"%d" % s.getsockname()[1])
    cs = [s.accept()[0] for i in range(4)]
    cs[0].recv(1)
    os.fork()
    __import__("time").sleep(100)
port = int(os.read(told, 9))
cs = [socket.create_connection(("127.0.0.1", port)) for i in range(4)]
cs[0].sendall(b"x")
own = socket.create_server(("127.0.0.1", 0))
with_itself = socket.create_connection(own.getsockname())
if os.fork() == 0: __import__("time").sleep(100)
print("ready", flush=True)
input()
"""


def mappings(pid, kind):
    with open(f"/proc/{pid}/maps") as file:
        found = [re.match(rf"(\S+) (\S+) .*memfd:sluice-{kind} ", line) for line in file]
    return [(m[1], m[2]) for m in found if m]


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


class Audit(Commands):
    def setUp(self):
        super().setUp()
        self.process = None

    def tearDown(self):
        if self.process:
            for child in children_of(self.process.pid):
                for grandchild in children_of(child):
                    os.kill(grandchild, 9)
                os.kill(child, 9)
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
        self.sluice("stop")

    def start(self, *options):
        self.assertEqual(self.call(self.build.sluiced, f"--dir={self.run_dir}", *options)[0], 0)
        self.process = subprocess.Popen(
            [self.build.sluice, "run", f"--dir={self.run_dir}", "--require", "--", sys.executable, "-c", PAIR],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.assertEqual(self.process.stdout.readline(), "ready\n")

    def audit(self):
        status, out, err = self.sluice("audit", "--json")
        self.assertEqual(err, "")
        found = json.loads(out)
        self.assertEqual(status, 1 if found["violations"] else 0)
        return found

    def intrude(self, kind, access, then=None):
        """What is said of this process after it has mapped a region of that kind."""
        place, _ = mappings(self.process.pid, kind)[0]
        writes = access == mmap.ACCESS_WRITE
        fd = os.open(f"/proc/{self.process.pid}/map_files/{place}", os.O_RDWR if writes else os.O_RDONLY)
        try:
            with mmap.mmap(fd, 4096, access=access):
                found = self.audit()["violations"]
        finally:
            os.close(fd)
        pids = {v["pid"] for v in found}
        self.assertIn(os.getpid(), pids)
        if kind == "pair":  # of others it cannot be told who is the intruder
            self.assertEqual(pids, {os.getpid()})
        self.assertEqual({v["region"] for v in found}, {kind})
        return {v["what"] for v in found}

    def test_relatives_are_no_violation(self):
        self.start()
        found = self.audit()
        self.assertEqual(found["violations"], [])
        self.assertGreaterEqual(found["processes"], 3)
        self.assertGreater(found["sealed"], 4)
        self.assertGreater(found["mappings"], found["regions"])
        self.assertIn("0 violations", self.sluice("audit")[1])

    def test_a_stranger_who_maps_or_holds_memory_is_seen(self):
        if os.geteuid() != 0:
            self.skipTest("opening another process's memory needs root")
        self.start()
        said = self.intrude("pair", mmap.ACCESS_READ)
        self.assertEqual(said, {"maps what is between two others", "holds what is between two others"})
        for kind in ("client", "replies"):
            self.assertEqual(self.intrude(kind, mmap.ACCESS_READ), {"has what is another's"})
        self.assertEqual(self.audit()["violations"], [])
        # The seals refuse a writable mapping, whoever asks.
        place, _ = mappings(self.process.pid, "pair")[0]
        fd = os.open(f"/proc/{self.process.pid}/map_files/{place}", os.O_RDWR)
        with self.assertRaises(PermissionError):
            mmap.mmap(fd, 4096, access=mmap.ACCESS_WRITE)
        os.close(fd)

    def test_without_protection_a_stranger_who_writes_is_seen(self):
        if os.geteuid() != 0:
            self.skipTest("opening another process's memory needs root")
        self.start("--protect=none")
        self.assertEqual(self.audit()["violations"], [])
        self.assertIn("maps what is between two others", self.intrude("pair", mmap.ACCESS_WRITE))
        for sealed in ("directory", "replies", "client"):  # always
            with self.assertRaises(PermissionError):
                self.intrude(sealed, mmap.ACCESS_WRITE)
        self.assertEqual(self.audit()["violations"], [])

    def test_without_a_coordinator_it_says_so(self):
        status, out, err = self.sluice("audit")
        self.assertEqual((status, out), (1, ""))
        self.one_line(err, "no coordinator")


main()
