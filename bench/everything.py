"""sluice bench all: every measurement, and a report of them: one page with plots, and the data beside it."""

import argparse
import csv
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import apps
import connect
import ipc
import request_questions
from machine import description, load, load_warning
from processes import Failure
from progress import Progress
from report_page import page
from session import INTERRUPTED, Session, estimate, rows_of
from words import Parser, add_coordinator

REQUESTS = "requests"
# The options of each part, of a full and of a quick run.
PARTS = {
    "ipc": (ipc, ["--measures=round-trip,bandwidth"],
            ["--rounds=3", "--seconds=0.05", "--sizes=8,4K,64K,1M"]),
    "pairs": (ipc, ["--measures=messages", "--sizes=64", "--pairs=1,2,4,8,16", "--ways=kernel,sockmap,sluice"],
              ["--rounds=3", "--seconds=0.05", "--pairs=1,4", "--cores=two"]),
    "connect": (connect, ["--cores=two,one"], ["--rounds=3", "--seconds=0.1", "--cores=two", "--workers=1,2"]),
    "apps": (apps, [], ["--rounds=3", "--connections=1,16"]),
}
TITLES = {"ipc": "Round trips and bandwidth by size of message", "pairs": "Several pairs of programs at the same time",
          "connect": "Setting up connections", "apps": "Servers"}
REQUESTS_ROUNDS_AND_SECONDS = {False: (5, 0.4), True: (3, 0.05)}


def add_options(parser):
    parser.add_argument("--report", required=True, metavar="DIR",
                        help="where to write index.html and the data as JSON and CSV; made if need be")
    parser.add_argument("--quick", action="store_true", help="fewer cases and shorter runs: a first look")
    parser.add_argument("--only", type=parts, default=[REQUESTS, *PARTS], metavar="LIST",
                        help=f"of {REQUESTS}, {', '.join(PARTS)} (default: all)")
    parser.add_argument("--user", help="whom servers run as that change their user (default: who calls)")
    add_coordinator(parser)
    parser.set_defaults(json="")


def parts(text):
    names = text.split(",")
    if not set(names) <= {REQUESTS, *PARTS}:
        raise argparse.ArgumentTypeError(f"{text!r}: parts are {REQUESTS}, {', '.join(PARTS)}")
    return names


@dataclass
class Part:
    """What a page tells of one command."""
    name: str
    title: str
    figures: list = field(default_factory=list)
    ways: list = field(default_factory=list)
    rows: dict = field(default_factory=dict)    # of requests: by question
    problems: list = field(default_factory=list)


def part_options(name, options):
    module, full, quick = PARTS[name]
    parser = Parser(prog=f"sluice bench {name}")
    module.add_options(parser)
    words = full + (quick if options.quick else []) + [f"--poll={options.poll}", f"--protect={options.protect}"]
    if options.user and hasattr(parser.parse_args(words), "user"):
        words.append(f"--user={options.user}")
    return parser.parse_args(words)


class Everything:
    def __init__(self, build, directory, options):
        self.build, self.directory, self.options = build, Path(directory), options
        self.report = Path(options.report)
        self.parts, self.loads = [], []
        self.interrupted = self.failed = False
        self.chosen = {name: part_options(name, options) for name in PARTS if name in options.only}

    def run(self):
        self.report.mkdir(parents=True, exist_ok=True)
        self.loads.append(load())
        self.warning = load_warning(self.loads[0])
        if self.warning:
            print(f"sluice: {self.warning}", file=sys.stderr)
        self.progress = Progress(self._estimate())
        try:
            if REQUESTS in self.options.only:
                self._requests()
            for name, options in self.chosen.items():
                self._part(name, options)
        except KeyboardInterrupt:
            self.interrupted = True
        self.progress.clear()
        for part in self.parts:  # again: writing may be what was interrupted
            self._write_data(part)
        self._write_page()
        return INTERRUPTED if self.interrupted else int(self.failed)

    def _estimate(self):
        rounds, seconds = REQUESTS_ROUNDS_AND_SECONDS[self.options.quick]
        total = sum(request_questions.estimate(name, rounds, seconds)
                    for name in request_questions.QUESTIONS if REQUESTS in self.options.only)
        for name, options in self.chosen.items():
            session = Session(self.build, str(self.directory), options.rounds)
            total += estimate(PARTS[name][0].cases(session, options), options.rounds)
        return total

    def _requests(self):
        part = Part(REQUESTS, "Requests to the coordinator: divided against shared queues")
        self.parts.append(part)
        rounds, seconds = REQUESTS_ROUNDS_AND_SECONDS[self.options.quick]
        for name in request_questions.QUESTIONS:
            (self.report / f"requests-{name}.json").unlink(missing_ok=True)
        for name in request_questions.QUESTIONS:
            self.progress.step(request_questions.estimate(name, rounds, seconds), f"requests: {name}")
            try:
                request_questions.measure(self.build.sluice, name, rounds, seconds, self.report / f"requests-{name}.json")
            except Failure as failure:
                self.failed = True
                part.problems.append(f"{name}: {failure}")
        self._write_data(part)

    def _part(self, name, options):
        module = PARTS[name][0]
        directory = self.directory / name
        directory.mkdir()
        directory.chmod(0o755)
        session = Session(self.build, str(directory), options.rounds, self.progress)
        part = Part(name, TITLES[name], ways=options.ways)
        self.parts.append(part)
        with module.open_ways(session, options):
            for figures in session.measured(module.cases(session, options)):
                part.figures += figures
        self.failed |= session.failed
        self._write_data(part)
        if session.interrupted:
            raise KeyboardInterrupt

    def _write_data(self, part):
        if part.name == REQUESTS:
            files = {name: self.report / f"requests-{name}.json" for name in request_questions.QUESTIONS}
            part.rows = {name: request_questions.rows_in(file) for name, file in files.items() if file.exists()}
            for name, rows in part.rows.items():
                write_csv(files[name].with_suffix(".csv"), rows)
            return
        rows = rows_of(part.figures, self.warning)
        (self.report / f"{part.name}.json").write_text(json.dumps(rows, indent=1) + "\n")
        write_csv(self.report / f"{part.name}.csv", rows)

    def _write_page(self):
        self.loads.append(load())
        machine = {**description(), "buildtype": self.build.buildtype(), "quick": self.options.quick,
                   "interrupted": self.interrupted, "load_before": self.loads[0], "load_after": self.loads[-1]}
        (self.report / "machine.json").write_text(json.dumps(machine, indent=1) + "\n")
        file = self.report / "index.html"
        file.write_text(page(machine, self.warning, self.parts))
        what = "what was measured so far" if self.interrupted else "the report"
        print(f"{file}: {what}", file=sys.stderr)


def write_csv(file, rows):
    """Lists become words."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(file, "w", newline="") as out:
        writer = csv.DictWriter(out, names)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: " ".join(map(str, value)) if isinstance(value, list) else value
                             for name, value in row.items()})


def run(build, options, directory):
    if os.path.exists(options.report) and not os.path.isdir(options.report):
        raise Failure(f"{options.report}: not a directory")
    return Everything(build, directory, options).run()
