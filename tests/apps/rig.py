"""A coordinator of a test's own, the processes beside it, and the end of them all.

A test is a function of a Rig, started by run(): it fails by raising Failure. Whatever happens,
every process that it started ends with it, daemons included: the test is their subreaper
(prctl(2)). A failed test prints what everybody was doing.
"""
import argparse
import ctypes
import json
import os
import pathlib
import random
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples" / "nginx"))
from coordinator import SluiceBuild  # noqa: E402
from processes import Failure, accepts_connections, free_port, wait_until  # noqa: E402,F401
from servers import find_program  # noqa: E402

PR_SET_CHILD_SUBREAPER = 36
SKIPPED = 77  # what meson takes for "skipped"
NOTHING_LEFT = {"clients": 0, "listeners": 0, "connections": 0, "regions": 0, "region_bytes": 0}
EVIDENCE_SECONDS = 30
# So that whoever accepts has to ask, and connects do each time.
RULED = """
[[rule]]
action = "deny"
uid = 4294967294
[[limit]]
clients = 60000
connections = 1000000
bytes = "1 TiB"
requests_per_second = 10000000
"""
HERE = pathlib.Path(__file__).resolve().parent


def check(condition, what):
    if not condition:
        raise Failure(what)


def children_of(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += [int(child) for child in file.read().split()]
    except OSError:
        pass  # it has ended
    return found


def descendants_of(pid):
    found = []
    for child in children_of(pid):
        found += [child, *descendants_of(child)]
    return found


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().replace("\0", " ").strip()
    except OSError:
        return ""


def alive(pid):
    """Neither gone nor a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def descriptors_of(pid):
    return {int(name): _link(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}


def _link(path):
    try:
        return os.readlink(path)
    except OSError:
        return "closed meanwhile"


def anonymous_bytes(pid):
    """Memory that is only this process's, without what it shares through memfds."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("Pss_Anon:"))


def shared_memory_bytes(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("Pss_Shmem:"))


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


class Process:
    """A program in a process group of its own, its error output (and its output) in a log."""

    def __init__(self, argv, log_path, environment, talks=False):
        self.name = pathlib.Path(argv[0]).name
        self.log_path = log_path
        with open(log_path, "ab") as log:
            self._popen = subprocess.Popen(
                argv, env=environment, start_new_session=True, stderr=log,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log)
        self.pid = self._popen.pid
        self._unread = b""

    def running(self):
        return self._popen.poll() is None

    def status(self):
        return self._popen.returncode

    def log(self):
        with open(self.log_path, errors="replace") as file:
            return file.read()

    def line(self, seconds=20):
        """The next line that it prints."""
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._popen.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                ready = selector.select(max(0, end - time.monotonic()))
                check(ready, f"{self.name} ({self.pid}) says nothing for {seconds} s")
                data = os.read(self._popen.stdout.fileno(), 65536)
                if not data:
                    status = self._popen.wait(5)
                    raise Failure(f"{self.name} ({self.pid}) ended with status {status}: "
                                  f"{self.log()[-600:]} {self._unread}")
                self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def order(self, words):
        try:
            self._popen.stdin.write(words.encode() + b"\n")
            self._popen.stdin.flush()
        except BrokenPipeError:
            pass  # line() says why

    def ask(self, question, seconds=20):
        self.order(question)
        return self.line(seconds)

    def finish(self, seconds=20):
        """Closes its input, if it has one, and waits for it; its last words."""
        if self._popen.stdin:
            try:
                self._popen.stdin.close()
            except BrokenPipeError:
                pass
        try:
            status = self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} ({self.pid}) does not end within {seconds} s") from None
        rest = self._unread
        if self._popen.stdout:
            rest += self._popen.stdout.read()
        check(status == 0, f"{self.name} ({self.pid}) ended with status {status}: "
                           f"{rest.decode(errors='replace')[-600:]} {self.log()[-600:]}")
        return rest.decode(errors="replace")

    def send(self, number):
        self._popen.send_signal(number)

    def kill(self, number=signal.SIGKILL, seconds=10):
        """Sends a signal and waits until it has ended."""
        self._popen.send_signal(number)
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} ({self.pid}) does not end on signal {number}") from None
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass


class Rig:
    def __init__(self, options, directory):
        self.options = options
        self.native = options.native
        self.directory = directory
        self.random = random.Random(options.seed)
        self.build = SluiceBuild(options.build)
        self.build.require()
        self.run_dir = os.path.join(directory, "sluice")
        os.mkdir(self.run_dir)
        os.chmod(self.run_dir, 0o755)
        self._processes = []
        self.coordinator = None
        self.start_coordinator()
        if self.options.protect.startswith("keys") and self.status()["protect"] == "regions":
            print("skipped: no protection keys here")
            sys.exit(SKIPPED)
        self._descriptors = descriptors_of(self.coordinator.pid)

    # ---- the coordinator ----------------------------------------------------------------

    def policy(self):
        if not self.options.ruled:
            return ["--policy=none"]
        path = os.path.join(self.directory, "ruled.toml")
        with open(path, "w") as file:
            file.write(RULED)
        return [f"--policy={path}"]

    def start_coordinator(self, *options, under=()):
        """`under`: a command that runs it and is told things line by line, its only child."""
        self.coordinator = self._start(
            [*under, self.build.sluiced, "--foreground", f"--dir={self.run_dir}",
             f"--queues={self.options.queues}", f"--protect={self.options.protect}", *(options or self.policy())], False, bool(under), "sluiced")

        def answers():
            check(self.coordinator.running(), f"sluiced ended: {self.coordinator.log()}")
            command = [self.build.sluice, "status", "--json", f"--dir={self.run_dir}"]
            answer = subprocess.run(command, capture_output=True, timeout=10)
            pids = children_of(self.coordinator.pid) if under else [self.coordinator.pid]
            return answer.returncode == 0 and json.loads(answer.stdout)["pid"] in pids
        wait_until(answers, "sluiced answers")

    def command(self, *arguments):
        return subprocess.run([self.build.sluice, *arguments, f"--dir={self.run_dir}"],
                              capture_output=True, text=True, timeout=10)

    def status(self):
        answer = self.command("status", "--json")
        check(answer.returncode == 0, f"no status: {answer.stderr}")
        return json.loads(answer.stdout)

    def accelerated(self):
        return self.status()["accelerated_total"]

    def check_accelerated(self, at_least, before=0):
        """Fails if this coordinator has seen fewer connections accelerated since `before`."""
        if not self.native:
            status = self.status()
            self._check_queues(status)
            got = status["accelerated_total"] - before
            check(got >= at_least, f"{got} connections accelerated instead of {at_least} at least;"
                                   f" fallbacks: {status['fallback_total']}")

    def _check_queues(self, status):
        """Requests have come by the queues that were asked for, and no other."""
        kind = self.options.queues
        for queues, requests in status["requests_total"].items():
            check(kind == "auto" or (requests > 0) == (queues == kind), f"queues={kind}: {status['requests_total']}")

    def audit(self):
        """Fails if any process has memory that it is not to have."""
        if self.native:
            return
        answer = self.command("audit", "--json")
        check(answer.returncode in (0, 1) and answer.stdout, f"no audit: {answer.stderr}")
        found = json.loads(answer.stdout)
        check(not found["violations"], f"the audit finds {found['violations'][:8]}")
        check(found["mappings"] > 0, "the audit sees nothing")

    # ---- processes ----------------------------------------------------------------------

    def environment(self, preload=True):
        env = {name: value for name, value in os.environ.items()
               if name not in ("LD_PRELOAD", "SLUICE_DIR")}
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        if preload and not self.native:
            env |= {"LD_PRELOAD": self.build.library, "SLUICE_DIR": self.run_dir}
        return env

    def start(self, argv, preload=True, talks=False):
        """talks: its input and output are for ask(), line() and finish()."""
        return self._start(argv, preload, talks, pathlib.Path(argv[0]).name)

    def script(self, path, *arguments, preload=True, talks=True):
        argv = [sys.executable, str(path), *map(str, arguments)]
        return self._start(argv, preload, talks, pathlib.Path(path).stem)

    def output(self, argv, preload=True, seconds=30):
        """Runs a program to its end, which has to be a good one."""
        process = self.start(argv, preload)
        process.finish(seconds)
        return process.log()

    def _start(self, argv, preload, talks, name):
        log = os.path.join(self.directory, f"{len(self._processes) + 1}-{name}.log")
        process = Process([str(word) for word in argv], log, self.environment(preload), talks)
        self._processes.append(process)
        return process

    # ---- the end ------------------------------------------------------------------------

    def check_nothing_left(self, seconds=10):
        """Once everything has ended: sluiced lives, and has forgotten all of it."""
        check(self.coordinator.running(), f"sluiced has died: {self.coordinator.log()}")
        left = {}

        def forgotten():
            status = self.status()
            left.clear()
            left.update({key: status[key] for key in NOTHING_LEFT})
            return left == NOTHING_LEFT
        try:
            wait_until(forgotten, "sluiced forgets what has ended", seconds)
        except Failure:
            raise Failure(f"still in sluiced's books after everything has ended: {left}") from None

        def closed():
            return len(descriptors_of(self.coordinator.pid)) <= len(self._descriptors)
        try:
            wait_until(closed, "sluiced closes its descriptors", seconds)
        except Failure:
            now = descriptors_of(self.coordinator.pid)
            new = {fd: link for fd, link in now.items() if fd not in self._descriptors}
            raise Failure(f"sluiced leaks descriptors: {new}") from None

    def tell_evidence(self):
        """What everybody is doing, for whoever reads about the failure."""
        try:
            for arguments in (("status",), ("ss",)):
                answer = self.command(*arguments)
                print(f"-- sluice {arguments[0]}\n{answer.stdout[-6000:]}{answer.stderr}")
        except subprocess.TimeoutExpired:
            print("-- sluiced does not answer")
        for process in self._processes:
            if not process.running() and process.status() not in (0, -signal.SIGKILL):
                print(f"-- {process.name} ({process.pid}) had ended with status {process.status()}")
        end = time.monotonic() + EVIDENCE_SECONDS
        for pid in filter(alive, descendants_of(os.getpid())):
            print(f"-- {pid} {command_line(pid)}")
            if shutil.which("gdb") and time.monotonic() < end:
                tell_backtrace(pid)
        for path in sorted(pathlib.Path(self.directory).glob("*.log")):
            text = path.read_text(errors="replace").strip()
            if text:
                print(f"-- {path.name}\n{text[-2500:]}")


def tell_backtrace(pid):
    command = ["gdb", "-p", str(pid), "-batch", "-ex", "thread apply all bt 12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, errors="replace",
                                timeout=20, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return
    print("\n".join(line for line in answer.stdout.splitlines()
                    if line.startswith(("#", "Thread"))))


def end_all():
    """Ends every descendant; the children of the dead become ours in turn."""
    while children := children_of(os.getpid()):
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except OSError:
                pass


def expire(number, frame):
    """The watchdog: a failure first, the end of everything if that does not help."""
    def expire_for_good(number, frame):
        end_all()
        os._exit(1)
    signal.signal(signal.SIGALRM, expire_for_good)
    signal.alarm(60)
    raise Failure("the watchdog: the test takes too long")


def run(test, seconds, options=None):
    """Runs `test(rig)` and exits; `seconds` is how long it may take. `options`: adds some to a parser."""
    add_options = options
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("build", help="the build directory")
    parser.add_argument("--native", action="store_true", help="without Sluice: is the test right?")
    parser.add_argument("--queues", default="divided")
    parser.add_argument("--protect", default="regions")
    parser.add_argument("--ruled", action="store_true", help="under a policy that refuses nothing of what a test does")
    parser.add_argument("--unix", action="store_true", help="sockets of AF_UNIX where there is a choice")
    parser.add_argument("--seed", type=int, default=1)
    if add_options:
        add_options(parser)
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    sys.exit(_run(test, options))


def _run(test, options):
    directory = tempfile.mkdtemp(prefix="sluice-test.")
    os.chmod(directory, 0o755)  # for workers that change their user
    rig = None
    try:
        rig = Rig(options, directory)
        test(rig)
        return 0
    except Exception as failure:  # KeyboardInterrupt and SystemExit only clean up
        if not isinstance(failure, Failure):
            traceback.print_exc()
        print(f"FAILED: {failure}", flush=True)
        if rig:
            rig.tell_evidence()
        return 1
    finally:
        end_all()
        shutil.rmtree(directory, ignore_errors=True)
