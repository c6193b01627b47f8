"""sluice bench protect: what protection costs: entrances into the library, what programs send each other, and servers, with
--protect=none, regions and keys in turn."""

from apps import APPS, server_case
from connect import RATE
from figures import Kind
from ipc import Ipc
from pairs import Runner
from processes import two_cores
from servers import SERVERS
from session import Case, opened
from words import add_rounds, names_of, numbers_up_to

WAYS = ("none", "regions", "keys")
NOTHING = WAYS[0]
PARTS = ("entrances", "ipc", "connections", *APPS)
ENTRANCES = [Kind("entrances_per_s", "entrances/s"), Kind("system_calls_per_s", "system calls/s")]
START_SECONDS = 0.3


def add_options(parser):
    parser.add_argument("--parts", type=names_of(PARTS), default=list(PARTS), metavar="LIST",
                        help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--connections", type=numbers_up_to(1000), default=[16], metavar="LIST",
                        help="of a server's load generator (default 16)")
    parser.add_argument("--user", help="whom servers run as that change their user (default: who calls)")
    add_rounds(parser, 9, 0.3)
    parser.set_defaults(ways=list(WAYS))


class Protect:
    def __init__(self, session, options):
        self.session, self.options = session, options
        self.runner = Runner(session.build.programs, session.directory, options.seconds)

    def cases(self):
        parts = {"entrances": self._entrances, "ipc": self._ipc, "connections": self._connections}
        for part in self.options.parts:
            for case in parts.get(part, lambda name=part: self._server(name))():
                case.baseline = NOTHING
                yield case

    def _case(self, name, title, kinds, run):
        return Case({"case": name}, title, kinds, WAYS, lambda way: run(self.session.open_ways[way]),
                    1.1 * self.options.seconds + START_SECONDS)

    def _entrances(self):
        def run(way):
            way.begin_counting()
            figures, = self.runner.run("entrances", [], two_cores(), launchers=(way.launcher(), ()), over="fork")
            return figures, problem(way)
        yield self._case("entrances", "one thread", ENTRANCES, run)

    def _ipc(self):
        o = self.options
        for measure, sizes in (("round-trip", [8]), ("messages", [8]), ("bandwidth", [64 << 10])):
            o.kinds, o.measures, o.sizes, o.pairs, o.cores = ["tcp", "unix"], [measure], sizes, [1], ["two"]
            yield from Ipc(self.session, o).cases()

    def _connections(self):
        def run(way):
            way.begin_counting()
            figures, = self.runner.run("connrate", [], two_cores(), launchers=(way.launcher(),) * 2)
            return figures, problem(way)
        yield self._case("connections", "TCP", [RATE], run)

    def _server(self, app):
        for connections in self.options.connections:
            yield server_case(self.session, self.options, app, SERVERS[app].variants[0], connections, two_cores())


def problem(way):
    accelerated, fallbacks = way.counted()
    return "" if accelerated > 0 else f"NOT ACCELERATED {fallbacks or ''}".strip()


def cases(session, options):
    return list(Protect(session, options).cases())


def open_ways(session, options):
    stack = opened(session, {way: ("divided", [f"--protect={way}"]) for way in WAYS})
    for name, way in session.open_ways.items():
        if way.protection() != name:
            session.missing[name] = "not measured: no protection keys here"
    return stack


def title(options):
    return (f"Medians of {options.rounds} alternating rounds of {options.seconds} s (servers: whole seconds). A ratio is to "
            f"--protect={NOTHING}; more is better.")
