#!/usr/bin/env python3
"""The baseline that redirects TCP by BPF: it does, and nothing of it outlives it."""
import os
import subprocess
import sys
import unittest

from bpf import bpf_programs
from commands import Commands, main, wait_until
from processes import Unavailable
from ways import Sockmap

# One to itself: bytes arrive as they were sent; prints how many segments with data the kernel made of them.
TALK = """
import os, socket, struct, threading
data = os.urandom(1 << 20)
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR))).start()
got = b"".join(iter(lambda: server.recv(65536), b""))
assert got == data
print(struct.unpack_from("I", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 156)[0])
"""


class Redirection(Commands):
    @unittest.skipIf(os.geteuid() != 0, "BPF programs are root's")
    def test_bytes_go_from_socket_to_socket(self):
        try:
            with Sockmap(self.build, self.directory) as sockmap:
                inside = self.call(*sockmap.launcher(), sys.executable, "-c", TALK)
                outside = self.call(sys.executable, "-c", TALK)
        except Unavailable as why:
            self.skipTest(why)
        self.assertEqual(inside, (0, "0\n", ""))
        self.assertEqual(outside[0], 0, outside)
        self.assertGreater(int(outside[1]), 0)

    @unittest.skipIf(os.geteuid() == 0, "root may")
    def test_who_is_not_root_is_told(self):
        with self.assertRaisesRegex(Unavailable, "needs root|without libbpf"), Sockmap(self.build, self.directory):
            pass

    @unittest.skipIf(os.geteuid() != 0, "BPF programs are root's")
    def test_nothing_of_a_killed_sockmap_stays_attached(self):
        before = bpf_programs()
        argv = [os.path.join(self.build.programs, "sockmap")]
        if not os.path.exists(argv[0]):
            self.skipTest("built without libbpf")
        holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = holder.stdout.readline().strip()
        if not said.startswith("/"):
            self.skipTest(said)
        self.assertEqual(len(bpf_programs() - before), 2)
        holder.kill()
        holder.communicate()
        wait_until(lambda: bpf_programs() == before, "the kernel has taken all back")
        # Its cgroup is empty, so the next one removes it.
        self.assertTrue(os.path.exists(said))
        subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.assertFalse(os.path.exists(said))


main()
