#!/usr/bin/env python3
"""What libsluice.so needs and exports: library.py LIBRARY, or nothing while there is none."""
import re
import subprocess
import sys

import sources

LIBC = re.compile(r"libc\.so\.6|ld-linux[\w.-]*")


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed(library):
    for name in re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "-d", library)):
        if not LIBC.fullmatch(name):
            yield f"needs {name} at run time"


def exports(library):
    listed = set()
    for _, line in sources.lines("preload/symbols.def"):
        match = re.match(r"SYMBOL\(.*, (\w+), \(.*\)\)$", line)
        if match:
            listed.add(match.group(1))
    exported = {line.split()[-1].split("@")[0]
                for line in output("nm", "-D", "--defined-only", library).splitlines()}
    for name in sorted(listed - exported):
        yield f"symbols.def lists {name}, which is not exported"
    for name in sorted(exported - listed):
        yield f"exports {name}, which symbols.def does not list"


def jumps(library):
    """The loader asks who calls these: they must reach libc by a jump, with the caller's own return address."""
    for name in ("dlopen", "dlmopen"):
        code = output("objdump", "-d", f"--disassemble={name}", library)
        if not re.search(r"\tjmp +\*", code) or re.search(r"\tcall +\*", code):
            yield f"{name} does not jump to libc's"


if len(sys.argv) < 2 or not (sources.ROOT / "preload/symbols.def").exists():
    print("no library yet")
    sys.exit(sources.SKIP)
sources.finish([*needed(sys.argv[1]), *exports(sys.argv[1]), *jumps(sys.argv[1])])
