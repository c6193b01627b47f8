#!/usr/bin/env python3
"""What runs on a tile compiles without an operating system, and needs only what docs/tilera.md names.

The same files as tilera/build-tilegx compiles, by this machine's compiler, with nothing within its reach but the
freestanding headers.
"""
import errno
import pathlib
import re
import subprocess
import sys
import tempfile

import sources

sys.path.insert(1, str(sources.ROOT / "tilera" / "tilegx"))
import objects  # noqa: E402

STAND_IN = sources.ROOT / "tests/tilegx/stand_in"
# Not for tiles: system calls, and the simulator.
ELSEWHERE = {"shm/bell.h", "shm/futex.h", "shm/kernel_call.h", "shm/key_instructions.h", "shm/region.h", "tilera/sim_noc.h"}
INSTRUCTIONS = re.compile(r"__tile_udn\w+|__insn_\w+")  # on the other machine


def freestanding_compiler(scratch):
    """g++ that finds no header but the freestanding ones."""
    version = objects.output_of("g++", "-dumpversion").strip()
    machine = objects.output_of("g++", "-dumpmachine").strip()
    library = f"/usr/include/c++/{version}"
    headers = scratch / "headers"
    subprocess.run([objects.HERE / "freestanding-headers", library, f"/usr/include/{machine}/c++/{version}", headers], check=True)
    own = objects.output_of("g++", "-print-file-name=include").strip()
    return ["g++", "-nostdinc", "-nostdinc++", "-fno-stack-protector", "-isystem", str(headers), "-isystem", str(headers / "machine"),
            "-isystem", own, "-isystem", str(STAND_IN), "-include", str(STAND_IN / "builtins.h")]


def symbols(scratch):
    compiled = objects.compile_all(freestanding_compiler(scratch), scratch / "objects")
    broken = [o for o in compiled if o.error]
    for o in broken:
        yield f"{o.source} does not compile:\n{o.error}"
    if broken:
        return
    objects.look_at(compiled, "nm", "size")
    for name, who in sorted(objects.missing_symbols(compiled).items()):
        if name not in objects.MAY_NEED and not INSTRUCTIONS.fullmatch(name):
            yield f"{', '.join(who)} needs {name}"


def headers_without_unit():
    """Of tilera/ and shm/, what no source that is compiled for a tile includes."""
    unread, reached = [*objects.sources()], set()
    while unread:
        for _, line in sources.lines(unread.pop()):
            match = re.match(r'#include "((?:tilera|shm)/.*)"', line)
            if match and match.group(1) not in reached:
                reached.add(match.group(1))
                unread.append(match.group(1))
    for path in sorted([*sources.ROOT.glob("tilera/*.h"), *sources.ROOT.glob("shm/*.h")]):
        name = str(path.relative_to(sources.ROOT))
        if name not in reached | ELSEWHERE:
            yield f"{name} is not compiled for a tile: use it in tilera/tilegx/units/"


def error_numbers():
    for line in (objects.HERE / "include/errno.h").read_text().splitlines():
        if match := re.match(r"#define (\w+) (\d+)", line):
            if getattr(errno, match.group(1)) != int(match.group(2)):
                yield f"{match.group(1)} is not {match.group(2)}"


def names_on_page():
    """The table below "What a port needs"."""
    page = (sources.ROOT / "docs/tilera.md").read_text()
    section = re.search(r"^## What a port needs\n(.*?)(?=^## |\Z)", page, re.S | re.M)
    named = set()
    for row in re.findall(r"^\| (`.*?) \|", section.group(1) if section else "", re.M):
        named.update(re.findall(r"`(\w+)`", row))
    for name in sorted(named ^ objects.MAY_NEED):
        yield f"docs/tilera.md and objects.py do not agree on {name}"


with tempfile.TemporaryDirectory() as directory:
    sources.finish([*symbols(pathlib.Path(directory)), *headers_without_unit(), *error_numbers(), *names_on_page()])
