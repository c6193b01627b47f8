"""The members of a kill storm: servers that begin again when they have died, and clients that check them."""
import json
import os
import pathlib
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "apps"))
from nginx import SIZES, Nginx, write_documents  # noqa: E402
from rig import (Failure, alive, check, command_line, descendants_of, find_program,  # noqa: E402,F401
                 free_port, wait_until)

HERE = pathlib.Path(__file__).resolve().parent
NO_INPUT, _NEVER_CLOSED = os.pipe()
HAPROXY_CONF = """\
global
  nbthread 1
  maxconn 400
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
  retries 3
frontend in
  bind 127.0.0.1:{port}
  default_backend out
backend out
  server nginx 127.0.0.1:{to}
"""


def in_session(leader):
    """Those that are in the session which this process has begun, proc_pid_stat(5)."""
    def session(pid):
        try:
            with open(f"/proc/{pid}/stat") as file:
                return int(file.read().rpartition(")")[2].split()[3])
        except OSError:
            return None
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and session(name) == leader]


class Member:
    """A program that the storm may kill, and that begins again."""

    def __init__(self, rig, argv, preload=True, talks=False):
        self.rig, self.argv, self.preload, self.talks = rig, argv, preload, talks
        self.log = open(os.path.join(rig.directory, "members.log"), "ab")
        self.begin()

    def begin(self):
        self.popen = subprocess.Popen([str(word) for word in self.argv], env=self.rig.environment(self.preload),
                                      stdin=NO_INPUT, stdout=self.log, stderr=self.log,
                                      start_new_session=True)

    def pids(self):
        return [self.popen.pid, *descendants_of(self.popen.pid)]

    def look_after(self):
        """Begins it again if it has ended; by itself it does not."""
        status = self.popen.poll()
        if status is None:
            return
        self.check_status(status)
        self.begin()

    def check_status(self, status):
        check(status == -signal.SIGKILL, f"{self.argv[0]} has ended by itself, with status {status}")

    def end(self):
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.popen.wait()


class Server(Member):
    """Takes its port again; if that is not free yet it ends and begins once more."""

    def check_status(self, status):
        check(status in (-signal.SIGKILL, 1, 71), f"{self.argv[0]} has ended by itself, with status {status}")


class StormNginx:
    """nginx that reloads. The master may die too: then its workers are ended, as whoever looks after it would."""

    def __init__(self, rig):
        write_documents(os.path.join(rig.directory, "documents"), SIZES)
        self.nginx = Nginx(rig, workers=2)
        self.nginx.start()

    def pids(self):
        master = self.nginx.master()
        return [master, *descendants_of(master)] if master else []

    def look_after(self):
        master = self.nginx.master()
        if alive(master):
            return
        # As a daemon it began a session (setsid(2)), and its workers are in it, also one that it had just forked.
        while left := [pid for pid in in_session(master) if alive(pid)]:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            wait_until(lambda: not any(alive(pid) for pid in left), "the workers end")
        self.nginx.start()

    def reload(self):
        master = self.nginx.master()
        if master and alive(master):
            try:
                os.kill(master, signal.SIGHUP)
            except ProcessLookupError:
                pass

    def end(self):
        self.nginx.stop(expected="exited on signal 9$")  # we did that


def haproxy(rig, to):
    port = free_port()
    path = os.path.join(rig.directory, "haproxy.cfg")
    with open(path, "w") as conf:
        conf.write(HAPROXY_CONF.format(port=port, to=to))
    member = Server(rig, [find_program("haproxy"), "-db", "-f", path])
    member.port = port
    return member


def redis(rig):
    port = free_port()
    member = Server(rig, [find_program("redis-server"), "--port", port, "--bind", "127.0.0.1", "--save", "1 1",
                          "--appendonly", "no", "--daemonize", "no", "--dir", rig.directory, "--stop-writes-on-bgsave-error",
                          "no"])
    member.port = port
    return member


def memcached(rig):
    port = free_port()
    member = Server(rig, [find_program("memcached"), "-t", "2", "-l", "127.0.0.1", "-p", port, "-u", "root"])
    member.port = port
    return member


class Client:
    """One that is never killed: it has to go on, whoever dies."""

    def __init__(self, rig, *arguments, preload=True):
        self.name = " ".join(map(str, arguments[:1]))
        self.process = rig.script(HERE / "storm_client.py", *arguments, preload=preload)
        self.pid = self.process.pid

    def figures(self, last=False):
        line = (self.process.finish(60).strip().splitlines()[-1] if last else self.process.ask("?", 60))
        check(line.startswith("{"), f"the client of {self.name}: {line}")
        return json.loads(line)
