"""A coordinator of our own, for as long as a measurement takes."""

import json
import os

from processes import Failure, Program, output_of


class SluiceBuild:
    """Where the programs of a build directory are, or of an installation."""

    def __init__(self, directory, sluiced=None, library=None, programs=None):
        self.directory = directory
        self.sluiced = sluiced or os.path.join(directory, "monitor", "sluiced")
        self.sluice = os.path.join(os.path.dirname(self.sluiced), "sluice")
        self.library = library or os.path.join(directory, "preload", "libsluice.so")
        self.programs = programs or os.path.join(directory, "bench")

    @classmethod
    def of_parts(cls, sluiced, library, programs):
        return cls(os.path.dirname(os.path.dirname(sluiced)), sluiced, library, programs)

    def require(self):
        for path in (self.sluice, self.sluiced, self.library):
            if not os.path.exists(path):
                raise Failure(f"{path} is missing: build Sluice first")

    def buildtype(self):
        try:
            with open(os.path.join(self.directory, "meson-info", "intro-buildoptions.json")) as file:
                return next(o["value"] for o in json.load(file) if o["name"] == "buildtype")
        except (OSError, StopIteration):
            return "unknown"


class Coordinator:
    """`sluiced` in a run directory of its own below `directory`, which is not shared."""

    def __init__(self, build, directory, options=()):
        self._build = build
        self._run_dir = os.path.join(directory, "sluice")
        os.makedirs(self._run_dir, exist_ok=True)
        # Whatever user a server's workers change to must get at it.
        os.chmod(self._run_dir, 0o755)
        argv = [build.sluiced, "--foreground", self._dir_option(), *options]
        self._program = Program(argv, os.path.join(directory, "sluiced.log"))

    def __enter__(self):
        try:
            ready = os.path.join(self._run_dir, "coordinator.sock")
            self._program.wait_until(lambda: os.path.exists(ready), f"no {ready}")
        except BaseException:
            self._program.stop()
            raise
        return self

    def __exit__(self, *exception):
        try:
            output_of([self._build.sluice, "stop", self._dir_option()], timeout_seconds=10)
        except Failure:
            pass  # the signal below ends it as well
        finally:
            self._program.stop()

    def launcher(self):
        """What comes before a command that is to run with Sluice, and not without."""
        return [self._build.sluice, "run", self._dir_option(), "--require", "--"]

    def preload_environment(self):
        return {"LD_PRELOAD": self._build.library, "SLUICE_DIR": self._run_dir}

    def status(self):
        argv = [self._build.sluice, "status", "--json", self._dir_option()]
        output = output_of(argv, timeout_seconds=10)
        try:
            return json.loads(output)
        except ValueError:
            raise Failure(f"sluice status printed no JSON: {output[:80]!r}") from None

    def cpu_seconds(self):
        """That it has used so far; proc(5), schedstat."""
        with open(f"/proc/{self._program.pid}/schedstat") as file:
            return int(file.read().split()[0]) / 1e9

    def _dir_option(self):
        return f"--dir={self._run_dir}"


def counted_between(before, after):
    """Connections accelerated, and not by reason, between two answers of status()."""
    accelerated = after["accelerated_total"] - before["accelerated_total"]
    earlier = before["fallback_total"]
    grown = {reason: count - earlier.get(reason, 0)
             for reason, count in after["fallback_total"].items()}
    return accelerated, {reason: count for reason, count in grown.items() if count > 0}
