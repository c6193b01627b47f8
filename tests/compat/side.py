"""One program, run one way: what a case sees, and the file with what it found.

A case calls step() for everything that has to come out alike with and without Sluice, and rate()
for what is a throughput. A step that fails does not end the case: what comes after it is tried.
"""
import contextlib
import hashlib
import os
import pathlib
import pwd
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "apps"))
from rig import (Failure, Rig, alive, check, command_line, descendants_of,  # noqa: E402,F401
                 free_port, run, wait_until)

SHOWN_CHARACTERS = 400
KERNEL_LISTENS = "0A"  # the state LISTEN in /proc/net/tcp


class Side:
    def __init__(self, rig: Rig):
        self.rig = rig
        self.native = rig.native
        self.directory = rig.directory
        self.steps = {}
        self.rates = {}
        self._running = []

    # ---- what is found ------------------------------------------------------------------

    @contextlib.contextmanager
    def step(self, name):
        """Yields a list for values that have to be the same natively and preloaded."""
        values = []
        begin = time.monotonic()
        try:
            yield values
            outcome = {"outcome": "ok", "values": [str(value) for value in values]}
        except (Failure, OSError, ValueError, LookupError, subprocess.SubprocessError) as error:
            outcome = {"outcome": "failed", "why": shortened(str(error) or repr(error))}
            self.rig.tell_evidence()
        outcome["seconds"] = round(time.monotonic() - begin, 2)
        self.steps[name] = outcome
        print(f"step {name}: {outcome}", flush=True)

    def rate(self, name, value, unit):
        self.rates[name] = [float(value), unit]

    # ---- files --------------------------------------------------------------------------

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text, mode=0o644):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w" if isinstance(text, str) else "wb") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def random_file(self, name, size, mode=0o644):
        """The same bytes each time."""
        return self.write(name, self.rig.random.randbytes(size), mode)

    # ---- programs -----------------------------------------------------------------------

    def start(self, argv, preload=True, user=None, environment=None):
        """A program that runs until the case stops it or ends."""
        argv = [*as_user(user), *map(str, argv)]
        if environment:
            argv = ["env", *(f"{name}={value}" for name, value in environment.items()), *argv]
        process = self.rig.start(argv, preload)
        self._running.append(process)
        return process

    def serve(self, argv, *ports, seconds=20, **how):
        """start(), and waits until something listens at each of the ports or paths."""
        process = self.start(argv, **how)
        for port in ports:
            def listens():
                check(process.running() or process.status() == 0,
                      f"{process.name} ended with {process.status()}: {process.log()[-600:]}")
                return os.path.exists(port) if isinstance(port, str) else is_listening(port)
            wait_until(listens, f"{process.name} listens at {port}", seconds)
        return process

    def output(self, argv, seconds=30, preload=True, user=None, data=None, status=0,
               environment=None, directory=None, errors=False):
        """What a program prints, which has to end with this status."""
        argv = [*as_user(user), *map(str, argv)]
        env = self.rig.environment(preload) | (environment or {})
        process = subprocess.Popen(
            argv, env=env, stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            cwd=directory or self.directory)
        try:
            out, err = process.communicate(data, timeout=seconds)
        except subprocess.TimeoutExpired:
            self.rig.tell_evidence()
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Failure(f"hang: {' '.join(argv)[:120]} does not end within {seconds} s") from None
        check(process.returncode == status,
              f"{' '.join(argv)[:120]} ended with {process.returncode}: "
              f"{(err + out[-200:]).decode(errors='replace')[-300:]}")
        return (out + err if errors else out).decode(errors="replace")

    def stop(self, process, number=signal.SIGTERM, seconds=15):
        if process in self._running:
            self._running.remove(process)
        if process.running():
            process.kill(number, seconds)

    def stop_all(self):
        """Ends what the case started. What does not end is a finding like others."""
        for process in reversed(self._running[:]):
            self._running.remove(process)
            with contextlib.suppress(Failure, OSError):
                if process.running():
                    process.kill(signal.SIGTERM, 10)
        with self.step("what is left running at the end") as values:
            with contextlib.suppress(Failure):
                wait_until(lambda: not self._left(), "everything has ended", 5)
            values += sorted({command_line(pid).split(" ")[0] for pid in self._left()})
        while left := self._left():
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)

    def _left(self):
        return [pid for pid in descendants_of(os.getpid())
                if pid != self.rig.coordinator.pid and alive(pid)]


def shortened(text):
    """A path or a port of this run says nothing to whoever compares two runs."""
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ..."


def as_user(name):
    """Servers that refuse to be root are started as somebody else, if we are root."""
    if name is None or os.geteuid() != 0:
        return []
    entry = pwd.getpwnam(name)
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]


def own(path, name):
    """Gives a directory to the user of as_user()."""
    os.makedirs(path, exist_ok=True)
    if os.geteuid() == 0:
        entry = pwd.getpwnam(name)
        os.chown(path, entry.pw_uid, entry.pw_gid)
    os.chmod(path, 0o700)
    return path


def is_listening(port):
    """Asks the kernel, so that no server is disturbed by a connection that says nothing."""
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(path) as file:
            for line in file:
                fields = line.split()
                if len(fields) > 3 and fields[3] == KERNEL_LISTENS and \
                        fields[1].endswith(f":{port:04X}"):
                    return True
    return False


def digest(data):
    if isinstance(data, str) and os.path.exists(data):
        with open(data, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16] \
                if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read()).hexdigest()[:16]
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()[:16]
