#!/usr/bin/env python3
"""Folders, file names, and words that do not belong where they stand."""
import re

import sources

FOLDERS = ["shm", "preload", "monitor", "nocsim", "tilera", "tests", "bench", "examples/nginx"]
README_LINES = 15
VAGUE_NAME = re.compile(r"(^|_)(util|utils|common|misc|helper|helpers)(_|$)|_(v\d+|new|old)$")
PROGRAMS = re.compile(r"(?<![a-z])(nginx|redis|memcached|haproxy|apache|httpd|envoy|postgres"
                      r"|mysql|wrk|libuv)(?![a-z])", re.I)
DEVELOPERS_PATH = re.compile(r"(?<![\w.$}])/(" + "|".join(["work", "home", "Users"]) + r")/\w")


def readmes():
    for folder in FOLDERS:
        if not (sources.ROOT / folder / "README.md").exists():
            yield f"{folder}: no README.md"
    for path in sources.files(*(f.split("/")[0] for f in FOLDERS)):
        if path.name == "README.md" and len(list(sources.lines(path))) > README_LINES:
            yield f"{path}: longer than {README_LINES} lines"


def names():
    for path in sources.files():
        for part in path.with_suffix("").parts:
            if VAGUE_NAME.search(part):
                yield f"{path}: says nothing about what is in it"


def program_names():
    for path in sources.code("preload", "monitor"):
        for number, line in sources.lines(path, comments=False):
            if PROGRAMS.search(line):
                yield f"{path}:{number}: names a program: {line.strip()}"


def paths():
    for path in sources.files():
        for number, line in sources.lines(path):
            if DEVELOPERS_PATH.search(line):
                yield f"{path}:{number}: a path of somebody's machine: {line.strip()}"


sources.finish([*readmes(), *names(), *program_names(), *paths()])
