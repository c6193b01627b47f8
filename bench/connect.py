"""sluice bench connect: connections per second, how long one takes and in which steps, and nginx with a new
connection for each request."""

import os

from apps import add_server_options, open_ways, server_case  # noqa: F401
from figures import Kind
from pairs import Runner
from processes import two_cores
from session import Case
from words import add_rounds, names_of, numbers_up_to

KINDS = {"tcp": "TCP", "unix": "AF_UNIX"}
CORES = ("two", "one")
SHORT = "nginx-short"
RATE = Kind("connections_per_s", "connections/s")
STEPS = [Kind("set_up_us", "set-up, us", less_is_better=True),
         Kind("connect_us", "of it connect()", is_compared=False),
         Kind("coordinator_us", "meanwhile the coordinator's CPU time", is_compared=False),
         Kind("accept_us", "then until accept()", is_compared=False),
         Kind("first_byte_us", "then until the first byte", is_compared=False),
         Kind("reply_us", "then until the reply", is_compared=False)]
START_SECONDS = 0.5  # of the programs
MOST_ACCEPTORS = MOST_WORKERS = 64


def add_options(parser):
    parser.add_argument("--kinds", type=names_of(KINDS), default=list(KINDS), metavar="LIST", help="of tcp, unix (default: both)")
    parser.add_argument("--acceptors", type=numbers_up_to(MOST_ACCEPTORS), default=[1, 2], metavar="LIST",
                        help="processes that accept (default 1,2)")
    parser.add_argument("--cores", type=names_of(CORES), default=["two"], metavar="LIST",
                        help="two: client and server have one each; one: they share it (default two)")
    parser.add_argument("--workers", default=None, type=lambda text: [] if text == "0" else numbers_up_to(MOST_WORKERS)(text),
                        metavar="LIST", help="of nginx, for which short connections are measured (default 1,2,4,8; 0: not)")
    parser.add_argument("--connections", type=numbers_up_to(1000), default=[16], metavar="LIST",
                        help="of nginx's load generator (default 16)")
    add_server_options(parser)
    add_rounds(parser, 5, 0.3)


class Connect:
    def __init__(self, session, options):
        self.session, self.options = session, options
        self.runner = Runner(session.build.programs, session.directory, options.seconds)
        self.cpus = {"two": two_cores(), "one": two_cores()[:1] * 2}

    def cases(self):
        o = self.options
        direct = [self._case(kind, acceptors, cores) for cores in o.cores for kind in o.kinds for acceptors in o.acceptors]
        workers = [1, 2, 4, 8] if o.workers is None else o.workers
        return direct + [server_case(self.session, o, SHORT, f"{number} worker" + ("s" if number > 1 else ""), connections,
                                     load_and_server_cpus()) for number in workers for connections in o.connections]

    def _case(self, kind, acceptors, cores):
        keys = {"kind": kind, "acceptors": acceptors, "cores": cores}
        title = f"{KINDS[kind]}, {acceptors} acceptor" + ("s" if acceptors > 1 else "")
        title += ", one core" if cores == "one" else ""
        ways = tuple(way for way in self.options.ways if way != "sockmap" or kind == "tcp")
        return Case(keys, title, [RATE, *STEPS], ways, lambda way: self._run(keys, way),
                    2 * (1.1 * self.options.seconds + START_SECONDS))

    def _run(self, keys, name):
        way = self.session.open_ways[name]
        over = "path" if keys["kind"] == "unix" else "port"
        acceptors, cpus = f"--acceptors={keys['acceptors']}", self.cpus[keys["cores"]]
        launchers = (way.launcher(), way.launcher())
        way.begin_counting()
        rate, = self.runner.run("connrate", [acceptors], cpus, launchers=launchers, over=over)
        accelerated, fallbacks = way.counted()
        requests, cpu_seconds = way.coordinator_work()
        steps, = self.runner.run("connrate", ["--steps", acceptors], cpus, launchers=launchers, over=over)
        figures = {**rate, **steps, "coordinator_us": 0.0, "requests_per_connection": 0.0}
        if accelerated > 0:
            figures |= {"coordinator_us": cpu_seconds / accelerated * 1e6, "requests_per_connection": requests / accelerated}
        return figures, problem(name, accelerated, fallbacks)


def problem(way, accelerated, fallbacks):
    """Some may be on the kernel: what a closing client leaves is not always there at once."""
    if way in ("divided", "shared") and accelerated == 0:
        return f"NOT ACCELERATED {fallbacks or ''}".strip()
    return f"accelerated in part {fallbacks}" if fallbacks else ""


def load_and_server_cpus():
    """One for the load generator, all others for the workers."""
    load_cpu, server_cpu = two_cores()
    return load_cpu, os.sched_getaffinity(0) - {load_cpu} or {server_cpu}


def title(options):
    return (f"Medians of {options.rounds} alternating rounds of {options.seconds} s. connect() is the request and its answer; "
            "the coordinator's\nCPU time is that of all connections, shared out among them, with what it spends on looking for more.")


def cases(session, options):
    return Connect(session, options).cases()
