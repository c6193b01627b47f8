"""Starts and ends programs so that none is left, whatever happens to this one."""

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failure(Exception):
    """Something did not run; says what in one line."""


class Unavailable(Failure):
    """Something that this machine, build or user does not have; says what, or why."""


# ---- the end of everything -----------------------------------------------------------------

def contained(name, main, grace_seconds=0):
    """Runs main() in a process of its own, and returns the status to exit with.

    Whatever ends it, no process and no temporary file of it is left. A signal that asks us to end
    simply kills all of it; or, if main() has something worth saving and is given some seconds for
    that, raises KeyboardInterrupt there first.
    """
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
    with tempfile.TemporaryDirectory(prefix=f"sluice-{name}.",
                                     ignore_cleanup_errors=True) as directory:
        os.chmod(directory, 0o755)  # for servers that change their user
        child = os.fork()
        if child == 0:
            tempfile.tempdir = directory
            run_to_the_end(main, grace_seconds > 0)
        caught = end_on_signals(child, grace_seconds)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
        _, status = os.waitpid(child, 0)
        signal.alarm(0)
        end_descendants()
    return 128 + caught[0] if caught else os.waitstatus_to_exitcode(status)


def interrupt(number, frame):
    for again in END_SIGNALS:
        signal.signal(again, signal.SIG_IGN)
    raise KeyboardInterrupt


def run_to_the_end(main, is_interruptible):
    """In the child: main(), and no return."""
    status = 1
    for number in END_SIGNALS if is_interruptible else ():
        signal.signal(number, interrupt)
    try:
        os.setpgid(0, 0)  # the terminal's signals come through the parent
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)
        status = main()
        sys.stdout.flush()
    except (Failure, OSError) as failure:
        print(f"run: {failure}", file=sys.stderr, flush=True)
    except SystemExit as end:
        status = end.code or 0
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def end_on_signals(child, grace_seconds):
    """Returns the list into which those come that have been caught."""
    caught = []

    def end(number, frame):
        os.kill(child, signal.SIGKILL if caught or grace_seconds == 0 else number)
        signal.alarm(grace_seconds)
        caught.append(number)
    for number in (*END_SIGNALS, signal.SIGALRM):
        signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)
    return caught


def end_descendants():
    """The children of the dead become ours, because we are their subreaper."""
    path = f"/proc/self/task/{os.getpid()}/children"
    while True:
        with open(path) as file:
            children = [int(pid) for pid in file.read().split()]
        if not children:
            return
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# ---- programs ------------------------------------------------------------------------------

def wait_until(condition, what, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"waited {seconds} s in vain: {what}")
        time.sleep(0.005)


def two_cores():
    """Two CPUs that this process may use, of different cores; the same one twice if need be."""
    allowed = sorted(os.sched_getaffinity(0))
    siblings = thread_siblings(allowed[0])
    others = [cpu for cpu in allowed if cpu not in siblings]
    return allowed[0], (others + allowed[1:] + allowed)[0]


def thread_siblings(cpu):
    path = f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    try:
        with open(path) as file:
            text = file.read()
    except OSError:
        return {cpu}
    siblings = set()
    for span in text.strip().split(","):
        first, _, last = span.partition("-")
        siblings.update(range(int(first), int(last or first) + 1))
    return siblings


def free_port():
    """A port that no connection takes for itself: who listens there can do so again after a restart."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        end = int(file.read().split()[0])
    while True:
        port = random.randrange(min(10_000, end // 2), end)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def accepts_connections(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def child_setup(cpu):
    """What a child does before exec: it ends with this process, and stays on its CPU, or several."""
    def setup():
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if cpu is not None:
            os.sched_setaffinity(0, cpu if isinstance(cpu, set) else {cpu})
    return setup


class Program:
    """A program that runs in the background, in a process group of its own."""

    def __init__(self, argv, log_path, cpu=None, environment=None):
        self.name = os.path.basename(argv[0])
        self.log_path = log_path
        with open(log_path, "ab") as log:
            self._popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True, preexec_fn=child_setup(cpu))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()

    @property
    def pid(self):
        return self._popen.pid

    def wait_until(self, condition, what):
        """Fails at once, with the program's last words, if it ends meanwhile."""
        def met_or_ended():
            return condition() or self._has_ended()
        wait_until(met_or_ended, f"{self.name}: {what}")
        if self._has_ended():
            raise Failure(f"{self.name} ended before it was ready: {self.last_words()}")

    def last_words(self):
        with open(self.log_path, errors="replace") as log:
            lines = log.read().strip().splitlines()
        return " | ".join(lines[-3:]) or "(no output)"

    def stop(self, patience_seconds=5):
        """SIGTERM, then SIGKILL for all that is left of its process group."""
        os.kill(self._popen.pid, signal.SIGTERM)
        end = time.monotonic() + patience_seconds
        while not self._has_ended() and time.monotonic() < end:
            time.sleep(0.005)
        # Nothing has reaped it yet, so the group's number is still this group's.
        os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def _has_ended(self):
        """Whether it has; leaves the zombie."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._popen.pid, flags) is not None


def output_of(argv, timeout_seconds, cpu=None, environment=None):
    """Runs a program to its end and returns what it printed."""
    name = os.path.basename(argv[0])
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})}, text=True, errors="replace",
        start_new_session=True, preexec_fn=child_setup(cpu))
    try:
        output, _ = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        raise Failure(f"{name} did not end within {timeout_seconds:.0f} s") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        last_lines = " | ".join(output.strip().splitlines()[-3:])
        raise Failure(f"{name} ended with status {process.returncode}: {last_lines}")
    return output
