"""The ways by which the same programs talk to each other: what comes before their command lines."""

import os
import select
import subprocess

from coordinator import Coordinator, counted_between
from processes import Unavailable, child_setup


class Kernel:
    """As it is."""
    title = "kernel"
    is_sluice = False

    def __init__(self, build, directory, coordinator_options=()):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def launcher(self):
        return []

    def begin_counting(self):
        pass

    def counted(self):
        """Connections accelerated since then, and not by reason."""
        return 0, {}

    def coordinator_work(self):
        """Requests that the coordinator served since then, and CPU seconds that it took."""
        return 0, 0.0


class Sluice:
    """A coordinator of our own, and the shim."""
    is_sluice = True

    def __init__(self, build, directory, coordinator_options=()):
        self._coordinator = Coordinator(build, directory,
                                        [f"--queues={self.queues}", *coordinator_options])

    def __enter__(self):
        self._coordinator.__enter__()
        return self

    def __exit__(self, *exception):
        self._coordinator.__exit__(*exception)

    def launcher(self):
        return self._coordinator.launcher()

    def begin_counting(self):
        self._before = self._coordinator.status()
        self._cpu_seconds_before = self._coordinator.cpu_seconds()

    def counted(self):
        after = self._coordinator.status()
        accelerated, fallbacks = counted_between(self._before, after)
        # Pipes and socket pairs are counted apart.
        return accelerated + sum(after[key] - self._before[key] for key in ("pipes_total", "socketpairs_total")), fallbacks

    def protection(self):
        """What the coordinator has of --protect: less than was asked for where there are no keys."""
        return self._coordinator.status()["protect"]

    def coordinator_work(self):
        cpu_seconds = self._coordinator.cpu_seconds() - self._cpu_seconds_before
        before, after = (sum(status["requests_total"].values())
                         for status in (self._before, self._coordinator.status()))
        return after - before, cpu_seconds


class Divided(Sluice):
    title, queues = "Sluice, divided", "divided"


class Shared(Sluice):
    title, queues = "Sluice, shared", "shared"


class Sockmap(Kernel):
    """TCP in the kernel, redirected from socket to socket by BPF programs, in a cgroup of our own."""
    title = "sockmap"

    def __init__(self, build, directory, coordinator_options=()):
        self._argv = [os.path.join(build.programs, "sockmap")]
        if not os.path.exists(self._argv[0]):
            raise Unavailable("built without libbpf")

    def __enter__(self):
        # It ends, and takes everything down, when its standard input does: also if we are killed.
        self._holder = subprocess.Popen(
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True, preexec_fn=child_setup(None))
        ready, _, _ = select.select([self._holder.stdout], [], [], 10)
        line = self._holder.stdout.readline().strip() if ready else "sockmap: no answer"
        if not line.startswith("/"):
            self.__exit__()
            raise Unavailable(line.removeprefix("sockmap: "))
        self._cgroup = line
        return self

    def __exit__(self, *exception):
        self._holder.stdin.close()
        try:
            self._holder.wait(10)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()
        self._holder.stdout.close()

    def launcher(self):
        enter = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
        return ["sh", "-c", enter, self._cgroup]


WAYS = {"kernel": Kernel, "sockmap": Sockmap, "divided": Divided, "shared": Shared}
