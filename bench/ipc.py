"""sluice bench ipc: round trips, messages and bandwidth over what programs talk through."""

import json

from figures import LIMIT, Kind
from processes import Failure, output_of, two_cores
from pairs import Runner
from rounds import median
from session import Case, opened
from words import add_coordinator, add_rounds, coordinator_options, names_of, numbers_up_to

KINDS = {"tcp": "TCP", "unix": "AF_UNIX", "pipe": "pipe"}
MEASURES = {"round-trip": Kind("p50_us", "round trip, us", less_is_better=True),
            "messages": Kind("messages_per_s", "messages/s"),
            "bandwidth": Kind("gb_per_s", "GB/s")}
CORES = ("two", "one")
WAYS = ("kernel", "sockmap", "sluice", LIMIT)
# One run gives messages/s and GB/s; where both are wanted, small messages are counted and large ones weighed.
LARGE_BYTES = 4096
MOST_BYTES, MOST_PAIRS = 64 << 20, 256
START_SECONDS, START_SECONDS_OF_A_PAIR = 0.25, 0.03  # of the programs of one run


def add_options(parser):
    parser.add_argument("--kinds", type=names_of(KINDS), default=list(KINDS), metavar="LIST",
                        help="of tcp, unix, pipe (default: all)")
    parser.add_argument("--measures", type=names_of(MEASURES), default=list(MEASURES), metavar="LIST",
                        help="of round-trip, messages, bandwidth (default: all; messages and bandwidth come from the same "
                        "runs, and if both are wanted messages are told up to 4K and bandwidth from there on)")
    parser.add_argument("--sizes", type=numbers_up_to(MOST_BYTES), default="1,8,64,512,4K,64K,1M,16M", metavar="LIST",
                        help="of messages in bytes; K and M are 1024 and its square, three dots go on doubling "
                        "(default %(default)s)")
    parser.add_argument("--pairs", type=numbers_up_to(MOST_PAIRS), default=[1], metavar="LIST",
                        help="so many pairs of programs at the same time (default 1)")
    parser.add_argument("--cores", type=names_of(CORES), default=list(CORES), metavar="LIST",
                        help="two: the programs of a pair have one each; one: they share it (default: both)")
    parser.add_argument("--ways", type=names_of(WAYS), default=list(WAYS), metavar="LIST",
                        help="of kernel, sockmap (TCP; takes root), sluice, limit (default: all)")
    add_coordinator(parser)
    add_rounds(parser, 5, 0.2)


def size_text(size):
    for unit, text in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size % unit == 0:
            return f"{size // unit} {text}"
    return f"{size} B"


def kinds_of(measures, size):
    """The runs that are needed for a size, and what is told of each."""
    if "round-trip" in measures:
        yield "round-trip", MEASURES["round-trip"]
    if "messages" in measures and not ("bandwidth" in measures and size > LARGE_BYTES):
        yield "messages", MEASURES["messages"]
    if "bandwidth" in measures and not ("messages" in measures and size <= LARGE_BYTES):
        yield "bandwidth", MEASURES["bandwidth"]


class Ipc:
    def __init__(self, session, options):
        self.session, self.options = session, options
        self.runner = Runner(session.build.programs, session.directory, options.seconds)
        self.cpus = {"two": two_cores(), "one": two_cores()[:1] * 2}
        self.limits = {}  # by cores, size and round

    def cases(self):
        o = self.options
        return [self._case(kind, measure, told, size, pairs, cores) for cores in o.cores for kind in o.kinds
                for pairs in o.pairs for size in o.sizes for measure, told in kinds_of(o.measures, size)]

    def _case(self, kind, measure, told, size, pairs, cores):
        keys = {"kind": kind, "measure": measure, "size": size, "pairs": pairs, "cores": cores}
        title = f"{KINDS[kind]}, {size_text(size)}, {told.title}"
        title += f", {pairs} pairs" if pairs > 1 else ""
        title += ", one core" if cores == "one" else ""
        ways = tuple(way for way in self.options.ways if way != "sockmap" or kind == "tcp")
        numbers = {way: 0 for way in ways}

        def run(way):
            numbers[way] += 1
            if way == LIMIT:
                return self._limit(told.name, size, cores, numbers[way]), ""
            return self._run(keys, way)
        seconds = 1.1 * self.options.seconds + START_SECONDS + START_SECONDS_OF_A_PAIR * pairs
        return Case(keys, title, [told], ways, run, seconds)

    def _run(self, keys, name):
        way = self.session.open_ways[name]
        is_pipe, is_one_way = keys["kind"] == "pipe", keys["measure"] != "round-trip"
        program = "pipes" if is_pipe else "oneway" if is_one_way else "pingpong"
        options = [f"--size={keys['size']}", *(["--oneway"] if is_pipe and is_one_way else [])]
        over = {"tcp": "port", "unix": "path", "pipe": "fork"}[keys["kind"]]
        way.begin_counting()
        figures = self.runner.run(program, options, self.cpus[keys["cores"]], keys["pairs"],
                                  (way.launcher(), way.launcher()), over)
        return combined(figures, is_one_way), self._problem(way, is_pipe)

    @staticmethod
    def _problem(way, is_pipe):
        """Whether it was what it is called."""
        accelerated, fallbacks = way.counted()
        if not way.is_sluice:
            return ""
        if accelerated == 0:
            return f"NOT ACCELERATED {fallbacks or ''}".strip()
        return f"accelerated in part {fallbacks}" if fallbacks and not is_pipe else ""

    def _limit(self, figure, size, cores, round_number):
        """One measurement serves all kinds of connection."""
        key = cores, size, round_number
        if key not in self.limits:
            cpu, peer_cpu = self.cpus[cores]
            text = output_of([self.session.build.sluice, "bench", "limits", f"--sizes={size}", f"--cpu={cpu}",
                              f"--peer-cpu={peer_cpu}", f"--seconds={self.options.seconds / 2}", "--json=-"], 120)
            try:
                row = json.loads(text)[0]
            except ValueError:
                raise Failure(f"sluice bench limits printed no rows: {text[-80:]!r}") from None
            self.limits[key] = {"p50_us": row["line_round_trip_us"], "messages_per_s": row["ring_messages_per_s"],
                                "gb_per_s": row["copy_gb_per_s"]}
        return {figure: self.limits[key][figure]}


def combined(pairs, is_one_way):
    """The figures of pairs that ran at the same time."""
    add_up = sum if is_one_way else median
    return {name: add_up([figures[name] for figures in pairs]) for name in pairs[0]}


def cases(session, options):
    return Ipc(session, options).cases()


def open_ways(session, options):
    return opened(session, {way: ("divided" if way == "sluice" else way, coordinator_options(options)) for way in options.ways})


def title(options):
    text = (f"Medians of {options.rounds} alternating rounds of {options.seconds} s. A ratio is the kernel's figure to the "
            "other, or the other way round, so that more is better.")
    return text + ("\nlimit: a cache line there and back, a plain ring, memcpy." if LIMIT in options.ways else "")
