"""The ways by which the same programs talk to each other: what comes before their command lines."""

from coordinator import Coordinator, counted_between


class Kernel:
    """As it is."""
    title = "kernel"

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


class Sluice:
    """A coordinator of our own, and the shim."""

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

    def counted(self):
        after = self._coordinator.status()
        accelerated, fallbacks = counted_between(self._before, after)
        # Pipes are counted apart.
        return accelerated + after["pipes_total"] - self._before["pipes_total"], fallbacks


class Divided(Sluice):
    title, queues = "Sluice, divided", "divided"


class Shared(Sluice):
    title, queues = "Sluice, shared", "shared"


WAYS = {"kernel": Kernel, "divided": Divided, "shared": Shared}
