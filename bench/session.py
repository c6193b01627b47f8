"""One run of a command of `sluice bench`: measures its cases in alternating rounds, tells them, keeps the rows."""

import json
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field

from figures import BASELINE, LIMIT, Figure, Table
from machine import load, load_warning
from processes import Failure, Unavailable
from progress import Progress
from rounds import order_of
from ways import WAYS

INTERRUPTED = 130


@dataclass
class Case:
    """Something that is measured over several ways. `run(way)` returns figures by name, and a problem or empty."""
    keys: dict
    title: str
    kinds: list     # of the figures that count; the others are details
    ways: tuple     # names
    run: object
    seconds: float  # about what one run takes
    baseline: str = BASELINE  # the way that the others are compared with

    def figures(self):
        titles = (self.title if len(self.kinds) == 1 else f"{self.title}, {kind.title}" for kind in self.kinds)
        return [Figure({**self.keys}, title, kind, self.ways, baseline=self.baseline) for title, kind in zip(titles, self.kinds)]


@dataclass
class Session:
    build: object
    directory: str
    rounds: int
    progress: Progress = None
    open_ways: dict = field(default_factory=dict)    # by name
    missing: dict = field(default_factory=dict)      # by name: why
    interrupted: bool = False
    failed: bool = False

    def open(self, stack, name, kind=None, coordinator_options=()):
        """Makes a way ready for the whole run; one that cannot be had is only noted."""
        try:
            directory = os.path.join(self.directory, name)  # a coordinator wants one of its own
            os.mkdir(directory, 0o755)
            way = WAYS[kind or name](self.build, directory, coordinator_options)
            self.open_ways[name] = stack.enter_context(way)
        except Unavailable as why:
            self.missing[name] = f"not measured: {why}"

    def measured(self, cases):
        """Yields the figures of each case; after an interrupt, what there is of the one that was begun."""
        for case in cases:
            figures = case.figures()
            try:
                self._measure(case, figures)
            except KeyboardInterrupt:
                self.interrupted = True
            self.progress.clear()
            yield figures
            if self.interrupted:
                return

    def _measure(self, case, figures):
        absent = {way: self.missing[way] for way in case.ways if way in self.missing}
        self.progress.skip(len(absent) * self.rounds * case.seconds)
        for figure in figures:
            figure.problems.update(absent)
        for number in range(self.rounds):
            for way in order_of(number, case.ways):
                if way in absent:
                    continue
                self.progress.step(case.seconds, f"{case.title}: {way}")
                try:
                    values, problem = case.run(way)
                except Unavailable as why:
                    absent[way] = problem = f"not measured: {why}"
                except (Failure, OSError) as failure:
                    absent[way] = problem = f"FAILED: {failure}"
                    self.failed = True
                else:
                    add(figures, way, values)
                for figure in figures if problem else ():
                    figure.problems[way] = problem


def add(figures, way, values):
    counting = {figure.kind.name for figure in figures}
    details = {name: value for name, value in values.items() if name not in counting}
    for figure in figures:
        if figure.kind.name in values:
            figure.add(way, values[figure.kind.name], details)


def estimate(cases, rounds):
    return sum(rounds * len(case.ways) * case.seconds for case in cases)


# ---- a command that is one list of cases ---------------------------------------------------

def run_command(command, session, options):
    """Prints a table and writes rows; returns the exit status."""
    quiet = options.json == "-"
    warning = load_warning(load())
    if warning:
        print(f"sluice: {warning}", file=sys.stderr)
    figures = []
    with command.open_ways(session, options):
        cases = command.cases(session, options)
        table = Table(options.ways, cases)
        session.progress = Progress(estimate(cases, session.rounds))
        if not quiet:
            print(f"{command.title(options)}\n\n{table.heading()}", flush=True)
        try:
            for measured in session.measured(cases):
                figures += measured
                for figure in measured if not quiet else ():
                    if figure.rounds:
                        print(table.line(figure), flush=True)
        except KeyboardInterrupt:
            session.interrupted = True
    for remark in table.remarks(figures) if not quiet else ():
        print(f"\n{remark}", end="")
    if not quiet:
        print()
    write_rows(options.json, rows_of(figures, warning))
    return INTERRUPTED if session.interrupted else int(session.failed)


def rows_of(figures, warning):
    return [row | {"loaded": bool(warning)} for figure in figures for row in figure.rows()]


def write_rows(file, rows):
    text = json.dumps(rows, indent=1) + "\n"
    if file == "-":
        print(text, end="", flush=True)
    elif file:
        with open(file, "w") as out:
            out.write(text)


def opened(session, ways):
    """An ExitStack in which the ways are open: {name: (kind, options of its coordinator)}."""
    stack = ExitStack()
    try:
        for name, (kind, options) in ways.items():
            if name != LIMIT:
                session.open(stack, name, kind, options)
    except BaseException:
        stack.close()
        raise
    return stack
