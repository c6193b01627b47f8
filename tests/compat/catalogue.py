"""The programs that are compared."""
import re
import subprocess
from dataclasses import dataclass, field
from typing import Callable

import cases_clients
import cases_data
import cases_messages
import cases_runtimes
import cases_servers
import cpython
from side import Side

PYTHON_PACKAGES = ("python3.11", "libpython3.11-testsuite")


@dataclass
class Program:
    name: str  # how --only and docs/divergences.md call it
    packages: tuple  # the first one's version is shown
    what: str  # what was run, for the page
    exercise: Callable[[Side], None]
    seconds: int = 120  # the watchdog of one side
    quick: bool = False  # part of --quick
    on_kernel: str = ""  # why nothing of it can be accelerated
    alone: bool = field(default=False)  # measures a throughput that others would disturb

    def version(self):
        answer = subprocess.run(["dpkg-query", "-W", "-f=${Version}", self.packages[0]],
                                capture_output=True, text=True)
        found = re.match(r"(?:\d+:)?([^-+~]+)", answer.stdout)
        return found[1] if found else "?"


def python_module(module, seconds=600, quick=False, on_kernel=""):
    return Program(f"cpython/{module}", PYTHON_PACKAGES, "its own tests",
                   lambda side: cpython.run_module(side, module), seconds, quick, on_kernel)


NO_CONNECTION = "makes no TCP connection"

CPYTHON = [
    python_module("test_socket", quick=True),
    python_module("test_selectors", quick=True, on_kernel=NO_CONNECTION),
    python_module("test_epoll", quick=True),
    python_module("test_poll", quick=True, on_kernel=NO_CONNECTION),
    python_module("test_select", quick=True, on_kernel=NO_CONNECTION),
    python_module("test_asyncore", quick=True),
    python_module("test_asynchat", quick=True),
    python_module("test_httplib", quick=True),
    python_module("test_urllib2_localnet", quick=True),
    python_module("test_ftplib", quick=True),
    python_module("test_smtplib", quick=True),
    python_module("test_ssl", quick=True),
    python_module("test_socketserver", quick=True),
    python_module("test_asyncio", 1200),
    python_module("test_subprocess", on_kernel=NO_CONNECTION),
    python_module("test_multiprocessing_fork", 900),
    python_module("test_multiprocessing_spawn", 1200),
    python_module("test_signal", on_kernel=NO_CONNECTION),
    python_module("test_os"),
    python_module("test_posix", on_kernel=NO_CONNECTION),
    python_module("test_io", on_kernel=NO_CONNECTION),
    python_module("test_concurrent_futures", 900, on_kernel=NO_CONNECTION),
]

PROGRAMS = [*CPYTHON, *(Program(*row, **more) for cases in
                        (cases_servers, cases_data, cases_messages, cases_runtimes, cases_clients)
                        for row, more in cases.PROGRAMS)]
