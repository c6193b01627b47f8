"""Runs the benchmark programs: pairs of a server and a client, or programs that fork, all at once."""

import json
import os
import select
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager
from itertools import count

from processes import Failure, Program, child_setup

PATIENCE_SECONDS = 30  # besides ten times what was asked for
serial_numbers = count()


class Measuring:
    """A program that measures: it says `ready`, and begins when its standard input ends."""

    def __init__(self, argv, start, environment=None):
        self.name = os.path.basename(argv[0])
        self.output = b""
        self._process = subprocess.Popen(
            argv, stdin=start, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
            env={**os.environ, **(environment or {})}, start_new_session=True,
            preexec_fn=child_setup(None))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self._process.returncode is None:  # not reaped: the group is still its
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()

    def wait_until_ready(self, seconds):
        if not self._read_until(lambda: b"ready\n" in self.output, time.monotonic() + seconds):
            raise self._failure()

    def figures(self, seconds):
        """What it printed last."""
        deadline = time.monotonic() + seconds
        self._read_until(lambda: False, deadline)
        try:
            if self._process.wait(max(0.1, deadline - time.monotonic())) == 0:
                return json.loads(self.output.split(b"\n")[-2])
        except (subprocess.TimeoutExpired, ValueError, IndexError):
            pass
        raise self._failure()

    def _read_until(self, is_enough, deadline):
        while not is_enough():
            ready, _, _ = select.select([self._process.stdout], [], [], max(0, deadline - time.monotonic()))
            more = os.read(self._process.stdout.fileno(), 4096) if ready else b""
            if not more:
                return False
            self.output += more
        return True

    def _failure(self):
        lines = self.output.decode(errors="replace").strip().splitlines()
        return Failure(f"{self.name}: {' | '.join(lines[-3:]) or 'no figures'}")


@contextmanager
def started(start_all):
    """Gives a descriptor to start programs with; afterwards start_all() lets them begin."""
    read_end, write_end = os.pipe()
    ends = [read_end, write_end]

    def begin():
        os.close(ends.pop())
    start_all.append(begin)
    try:
        yield read_end
    finally:
        for end in ends:
            os.close(end)


class Runner:
    """Runs the programs in `folder` for some seconds, on two CPUs."""

    def __init__(self, folder, directory, seconds):
        self.folder, self.directory, self.seconds = folder, directory, seconds
        self.patience = 10 * seconds + PATIENCE_SECONDS

    def run(self, program, options, cpus, pairs=1, launchers=((), ()), over="port"):
        """A list of figures, one for each pair. `over`: port, path, or fork, of which one launcher counts."""
        path = os.path.join(self.folder, program)
        begin = []
        with ExitStack() as stack:
            start = stack.enter_context(started(begin))
            measure = ["--json", "--wait", f"--seconds={self.seconds}", f"--cpu={cpus[0]}", *options]
            if over == "fork":
                clients = [[*launchers[0], path, *measure, f"--peer-cpu={cpus[1]}"]] * pairs
            else:
                places = [self._serve(stack, [*launchers[1], path, "--server", f"--cpu={cpus[1]}", *options], over)
                          for _ in range(pairs)]
                clients = [[*launchers[0], path, "--client", place(), *measure] for place in places]
            running = [stack.enter_context(Measuring(argv, start)) for argv in clients]
            for client in running:
                client.wait_until_ready(self.patience)
            begin[0]()
            return [client.figures(self.patience) for client in running]

    def _serve(self, stack, argv, over):
        """Starts a server; returns what gives the client's option that leads to it, once it listens."""
        meeting_place = os.path.join(self.directory, f"meet.{next(serial_numbers)}")
        option = "--path" if over == "path" else "--port-file"
        server = stack.enter_context(Program([*argv, f"{option}={meeting_place}"],
                                             os.path.join(self.directory, "server.log")))

        def place():
            server.wait_until(lambda: os.path.exists(meeting_place), "it does not listen")
            if over == "path":
                return f"--path={meeting_place}"
            with open(meeting_place) as file:
                return f"--port={file.read().strip()}"
        return place
