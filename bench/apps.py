"""sluice bench apps: nginx, memcached and redis, each under its usual load generator."""

import os
import tempfile

from compare import loads
from figures import Kind
from processes import two_cores
from servers import SERVERS
from session import Case, opened
from words import add_coordinator, add_rounds, coordinator_options, names_of, numbers_up_to

APPS = ("nginx", "memcached", "redis")
WAYS = ("kernel", "sockmap", "divided", "shared")
REQUESTS = Kind("requests_per_s", "requests/s")
START_SECONDS = 1.0  # of a server and its load generator
MOST_CONNECTIONS = 1000


def add_options(parser):
    parser.add_argument("--apps", type=names_of(APPS), default=list(APPS), metavar="LIST",
                        help="of nginx, memcached, redis (default: all)")
    parser.add_argument("--connections", type=numbers_up_to(MOST_CONNECTIONS), default=[1, 16, 64], metavar="LIST",
                        help="of the load generator (default 1,16,64)")
    add_server_options(parser)
    add_rounds(parser, 3, 1)


def add_server_options(parser):
    parser.add_argument("--ways", type=names_of(WAYS), default=list(WAYS), metavar="LIST",
                        help="of kernel, sockmap (takes root), divided, shared: Sluice with either request queue (default: all)")
    parser.add_argument("--user", help="whom servers run as that change their user (default: who calls)")
    add_coordinator(parser)


def whole_seconds(seconds):
    """Load generators take no fractions."""
    return max(1, round(seconds))


def server_case(session, options, app, variant, connections, cpus):
    """A server of examples/nginx as a case."""
    server = SERVERS[app]()
    seconds = whole_seconds(options.seconds)

    def run(name):
        way = session.open_ways[name]
        with tempfile.TemporaryDirectory(dir=session.directory) as directory:
            os.chmod(directory, 0o755)
            (load, counted), = loads(server, variant, way, directory, [connections], seconds, cpus, options.user)
        return ({"requests_per_s": load.requests_per_s, "p50_us": load.p50_us, "p99_us": load.p99_us},
                load.errors or problem(way, connections, *counted))
    keys = {"app": app, "variant": variant, "connections": connections}
    title = f"{app} {variant}".strip() + f", {connections} connection" + ("s" if connections > 1 else "")
    return Case(keys, title, [REQUESTS], tuple(options.ways), run, 1.1 * seconds + START_SECONDS)


def problem(way, connections, accelerated, fallbacks):
    if way.is_sluice and accelerated < connections:
        return f"only {accelerated} accelerated; on the kernel: {fallbacks}"
    return ""


def cases(session, options):
    return [server_case(session, options, app, variant, connections, two_cores()) for app in options.apps
            for variant in SERVERS[app].variants for connections in options.connections]


def open_ways(session, options):
    return opened(session, {way: (way, coordinator_options(options)) for way in options.ways})


def title(options):
    return f"requests/s; medians of {options.rounds} alternating rounds of {whole_seconds(options.seconds)} s."
