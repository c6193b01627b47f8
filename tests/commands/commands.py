"""What the tests of commands share: a run directory for each, and no process left behind."""
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "nginx"))
from coordinator import SluiceBuild  # noqa: E402
from processes import contained, wait_until  # noqa: E402,F401

PACKET = struct.Struct("=QIHHIIII")  # shm/protocol.h
VERSION = 1  # its place in a packet


class Commands(unittest.TestCase):
    build = None

    def setUp(self):
        self.directory = tempfile.mkdtemp()
        os.chmod(self.directory, 0o755)
        self.run_dir = os.path.join(self.directory, "run")

    def call(self, *argv, **more):
        """Runs a program to its end; its status, output and error output."""
        env = {name: value for name, value in os.environ.items()
               if name not in ("LD_PRELOAD", "SLUICE_DIR")} | more.pop("env", {})
        # Files, not pipes: who inherits a pipe and lives on would keep us waiting.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            status = subprocess.run([str(word) for word in argv], env=env, stdout=out, stderr=err,
                                    stdin=subprocess.DEVNULL, **{"timeout": 30} | more).returncode
            out.seek(0)
            err.seek(0)
            return status, out.read(), err.read()

    def sluice(self, command, *arguments, **more):
        return self.call(self.build.sluice, command, f"--dir={self.run_dir}", *arguments, **more)

    def one_line(self, text, *words):
        self.assertEqual(text.count("\n"), 1, text)
        for word in words:
            self.assertIn(word, text)

    def runs_on_the_kernel(self, *words):
        """With one line why; with --require it does not run."""
        command = ["--", "sh", "-c", "echo ran with $LD_PRELOAD."]
        status, out, err = self.sluice("run", *command)
        self.assertEqual((status, out), (0, "ran with .\n"), err)
        self.one_line(err, *words, "running on the kernel")
        status, out, err = self.sluice("run", "--require", *command)
        self.assertEqual((status, out), (125, ""), err)
        self.one_line(err, *words)

    def no_coordinator(self):
        return self.sluice("status")[0] == 1


class OtherVersion:
    """Listens like a coordinator, and answers each packet as one of the next version would."""

    def __init__(self, directory):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(os.path.join(directory, "coordinator.sock"))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            connection, _ = self._socket.accept()
            with connection:
                fields = list(PACKET.unpack(connection.recv(4096)[:PACKET.size]))
                fields[VERSION] += 1
                connection.send(PACKET.pack(*fields))


def main():
    Commands.build = SluiceBuild(os.path.abspath(sys.argv.pop(1)))
    Commands.build.require()

    def run_all():
        return 0 if unittest.main("__main__", exit=False, verbosity=2).result.wasSuccessful() else 1
    sys.exit(contained("test", run_all))
