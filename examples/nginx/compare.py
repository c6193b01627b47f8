"""Compares a server over kernel loopback with the same over Sluice; see `run --help`."""

import argparse
import json
import os
import sys
import tempfile
from contextlib import contextmanager

from coordinator import SluiceBuild
from processes import Program, accepts_connections, contained, free_port, two_cores
from rounds import Ratio, median
from servers import SERVERS
from ways import WAYS

DEFAULT_WAYS = ["kernel", "divided", "shared"]
TITLES = {name: way.title for name, way in WAYS.items()}
COLUMNS = "{:<17} {:<16} {:>11} {:>8} {:>9} {:>7} {:>13} {:>11}"


class Cell:
    """All rounds of one way, variant and number of connections."""

    def __init__(self, way, variant, connections):
        self.way, self.variant, self.connections = way, variant, connections
        self.loads, self.accelerated, self.fallbacks = [], [], []

    def add(self, load, accelerated, fallbacks):
        self.loads.append(load)
        self.accelerated.append(accelerated)
        self.fallbacks.append(fallbacks)

    def median(self, figure):
        return median(self.rounds(figure))

    def rounds(self, figure):
        return [getattr(load, figure) for load in self.loads]

    def ratio(self, kernel):
        return Ratio(self.rounds("requests_per_s"), kernel.rounds("requests_per_s"))

    def problems(self):
        """Why these figures are not what they seem; a line each."""
        where = f"{TITLES[self.way]}, {self.variant} {self.connections} connections"
        for load in self.loads:
            if load.errors:
                yield f"{where}: {load.errors}"
        if self.way in ("divided", "shared") and min(self.accelerated) < self.connections:
            yield (f"{where}: only {min(self.accelerated)} accelerated; "
                   f"on the kernel: {self.fallbacks}")


@contextmanager
def running_server(server, variant, launcher, directory, cpu, user):
    port = free_port()
    argv = launcher + server.command(variant, directory, port, user)
    with Program(argv, os.path.join(directory, "server.log"), cpu) as program:
        program.wait_until(lambda: accepts_connections(port), f"port {port} does not answer")
        yield port


def loads(server, variant, way, directory, connections, seconds, cpus, user):
    """Yields for each number of connections the load, and the connections that were accelerated."""
    load_cpu, server_cpu = cpus
    with running_server(server, variant, way.launcher(), directory, server_cpu, user) as port:
        for number in connections:
            way.begin_counting()
            load = server.load(way.launcher(), directory, port, number, seconds, load_cpu)
            yield load, way.counted()


class Comparison:
    def __init__(self, options, coordinator_options=()):
        self.options = options
        self.coordinator_options = coordinator_options
        self.server = SERVERS[options.app]()
        self.build = SluiceBuild(options.build)
        self.load_cpu, self.server_cpu = two_cores()
        self.cells = {(way, variant, connections): Cell(way, variant, connections)
                      for variant in self.server.variants
                      for connections in options.connections
                      for way in options.ways}

    def measure(self):
        for round_number in range(1, self.options.rounds + 1):
            for way in self.options.ways:
                print(f"Round {round_number} of {self.options.rounds}: {TITLES[way]}", flush=True)
                for variant in self.server.variants:
                    self._measure_way(way, variant)

    def _measure_way(self, name, variant):
        with (tempfile.TemporaryDirectory() as directory,
              WAYS[name](self.build, directory, self.coordinator_options) as way):
            os.chmod(directory, 0o755)
            measured = loads(self.server, variant, way, directory, self.options.connections,
                             self.options.seconds, (self.load_cpu, self.server_cpu), self.options.user)
            for connections, (load, counted) in zip(self.options.connections, measured):
                self.cells[name, variant, connections].add(load, *counted)

    def kernel_cell(self, cell):
        return self.cells.get(("kernel", cell.variant, cell.connections))

    def print_table(self):
        print(f"\n{self.server.title}; medians of {self.options.rounds} x "
              f"{self.options.seconds} s; load on CPU {self.load_cpu}, server on "
              f"CPU {self.server_cpu}\n")
        print(COLUMNS.format("connections", "way", "requests/s", "p50 us", "p99 us", "ratio",
                             "(spread)", "accelerated"))
        for cell in self.cells.values():
            print(self._line(cell))
        print("\nratio: to the kernel's median of requests/s (spread: of each round by itself); "
              "accelerated: the\nleast in a round that the coordinator counted, with those that "
              "the load generator tries first.")
        if self.options.app == "memcached":
            print("p50 and p99 are interpolated in memcaslap's powers of two.")

    def _line(self, cell):
        kernel = self.kernel_cell(cell)
        ratio, spread = "", ""
        if kernel and cell is not kernel:
            compared = cell.ratio(kernel)
            ratio, spread = f"{compared.value:.2f}", f"({compared.low:.2f}-{compared.high:.2f})"
        return COLUMNS.format(
            f"{cell.variant} {cell.connections:>3}".strip(), TITLES[cell.way],
            f"{cell.median('requests_per_s'):,.0f}", f"{cell.median('p50_us'):.1f}",
            f"{cell.median('p99_us'):.1f}", ratio, spread,
            min(cell.accelerated) if cell.way in ("divided", "shared") else "-")

    def problems(self):
        return [problem for cell in self.cells.values() for problem in cell.problems()]

    def as_json(self):
        return {"app": self.options.app, "rounds": self.options.rounds,
                "seconds": self.options.seconds, "buildtype": self.build.buildtype(),
                "problems": self.problems(),
                "cells": [self._cell_as_json(cell) for cell in self.cells.values()]}

    def _cell_as_json(self, cell):
        kernel = self.kernel_cell(cell)
        figures = {"way": cell.way, "variant": cell.variant, "connections": cell.connections,
                   "accelerated": cell.accelerated, "fallbacks": cell.fallbacks}
        for figure in ("requests_per_s", "p50_us", "p99_us"):
            figures[figure] = cell.median(figure)
            figures[f"{figure}_rounds"] = cell.rounds(figure)
        if kernel and cell is not kernel:
            ratio = cell.ratio(kernel)
            figures["ratio"], figures["ratio_spread"] = ratio.value, (ratio.low, ratio.high)
        return figures


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def connection_list(text):
    return [positive(number) for number in text.split(",")]


def way_list(text):
    ways = text.split(",")
    if not set(ways) <= set(WAYS):
        raise ValueError(text)
    return ways


def parse_options():
    parser = argparse.ArgumentParser(prog="run", add_help=False, allow_abbrev=False)
    parser.add_argument("--app", choices=SERVERS, default="nginx")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--seconds", type=positive, default=3)
    parser.add_argument("--connections", type=connection_list, default=[1, 16, 64])
    parser.add_argument("--ways", type=way_list, default=DEFAULT_WAYS)
    parser.add_argument("--user")
    parser.add_argument("--build", required=True)
    parser.add_argument("--json")
    return parser.parse_args()


def main():
    options = parse_options()
    if options.json:
        open(options.json, "a").close()  # now, not after everything has been measured
    comparison = Comparison(options)
    if options.ways != ["kernel"]:
        comparison.build.require()
        if comparison.build.buildtype() not in ("release", "unknown"):
            print(f"Note: {options.build} is a {comparison.build.buildtype()} build")
    if comparison.load_cpu == comparison.server_cpu:
        print("Note: there is only one CPU; load generator and server share it")
    comparison.measure()
    comparison.print_table()
    if options.json:
        with open(options.json, "w") as file:
            json.dump(comparison.as_json(), file, indent=1)
    problems = comparison.problems()
    for problem in problems:
        print(f"Problem: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(contained("example", main))
