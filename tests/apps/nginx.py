"""An nginx that runs as a daemon with several workers, its documents, and clients for it."""
import json
import os
import random
import re
import signal
import time

from rig import HERE, accepts_connections, alive, check, find_program, free_port, wait_until

CONF = """\
{user}
daemon on;
worker_processes {workers};
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
# nginx clears its environment: these two keep Sluice loaded in its workers.
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile {sendfile};
  keepalive_requests 1000000000;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  {upstream}
  server {{
    listen 127.0.0.1:{port};
    root {documents};
    {locations}
  }}
}}
"""
SIZES = {"small": 613, "medium": 48_000, "large": 400_123}


def write_documents(directory, sizes):
    """Files of these sizes that no other file's bytes could be taken for."""
    os.makedirs(directory, exist_ok=True)
    os.chmod(directory, 0o755)
    for name, size in sizes.items():
        path = os.path.join(directory, name)
        with open(path, "wb") as file:
            file.write(random.Random(name).randbytes(size))
        os.chmod(path, 0o644)
    return [f"/{name}" for name in sizes]


class Nginx:
    def __init__(self, rig, name="nginx", workers=4, preload=True, sendfile="on", upstream="",
                 locations=""):
        self._rig, self._preload = rig, preload
        self.port = free_port()
        self.directory = os.path.join(rig.directory, name)
        self.documents = os.path.join(rig.directory, "documents")
        os.makedirs(self.directory)
        self._conf = os.path.join(self.directory, "nginx.conf")
        with open(self._conf, "w") as conf:
            # The workers change their user, as Debian's do.
            conf.write(CONF.format(
                user="user www-data;" if os.geteuid() == 0 else "", workers=workers,
                directory=self.directory, port=self.port, documents=self.documents,
                sendfile=sendfile, upstream=upstream, locations=locations))

    def start(self):
        self.command()
        wait_until(lambda: self.master() and accepts_connections(self.port), "nginx answers")
        return self

    def command(self, *arguments):
        """Runs the nginx binary, which returns at once in each of its uses here."""
        return self._rig.output([find_program("nginx"), "-p", self.directory, "-c", self._conf,
                                 "-e", os.path.join(self.directory, "error.log"), *arguments],
                                self._preload)

    def master(self, suffix=""):
        try:
            with open(os.path.join(self.directory, f"nginx.pid{suffix}")) as file:
                return int(file.read())
        except (OSError, ValueError):
            return None

    def stop(self, seconds=15, expected=None):
        """Gracefully, as an operator does; then its log must be free of trouble, but for what is `expected` (a pattern)."""
        master = self.master()
        os.kill(master, signal.SIGQUIT)
        wait_until(lambda: not alive(master), "nginx ends when it is told to quit", seconds)
        self.check_log(expected)

    def check_log(self, expected=None):
        with open(os.path.join(self.directory, "error.log"), errors="replace") as log:
            trouble = [line for line in log
                       if re.search(r"\[(error|crit|alert|emerg)\]|exited on signal", line)
                       and not (expected and re.search(expected, line))]
        check(not trouble, f"nginx's log: {''.join(trouble[:8])}")

    def client(self, paths, preload=True, keepalive=0, close=0, count=0):
        return self._rig.script(
            HERE / "http_client.py", self.port, self.documents, "--paths", *paths,
            f"--keepalive={keepalive}", f"--close={close}", f"--count={count}", preload=preload)


def wait_for_requests(clients, at_least, seconds=20):
    """Until each of the clients has had so many answers more than now."""
    wanted = {client: figures(client)["requests"] + at_least for client in clients}
    wait_until(lambda: all(figures(client)["requests"] >= number
                           for client, number in wanted.items()),
               f"{at_least} more answers for every client", seconds)


def figures(client):
    return checked(client, client.ask("?"))


def finish(client, seconds=40):
    return checked(client, client.finish(seconds).strip().splitlines()[-1])


def finish_by_itself(client, seconds=40):
    """The figures of a client that was started with a count."""
    line = client.line(seconds)
    client.finish()
    return checked(client, line)


def checked(client, line):
    """What a client has counted, which must be free of failures."""
    counted = json.loads(line)
    failures = counted["failures"]
    check(not failures, f"client {client.pid}: {len(failures)} failures, "
                        f"{counted['requests']} good: {failures[:4]}")
    return counted


def every(period_seconds, total_seconds, action):
    end = time.monotonic() + total_seconds
    times = 0
    while time.monotonic() < end:
        begin = time.monotonic()
        action()
        times += 1
        time.sleep(max(0, period_seconds - (time.monotonic() - begin)))
    return times
