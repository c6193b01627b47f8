#!/usr/bin/env python3
"""Who may include whom: the table of DESIGN.md, section 2."""
import re

import sources

# Headers of the C++ library that need no library at run time.
FREESTANDING = set("""algorithm array atomic bit climits compare concepts coroutine cstdarg
    cstddef cstdint cstring initializer_list iterator limits new numeric optional ratio
    source_location span string_view tuple type_traits utility variant version""".split())
LIBC_FOLDERS = {"arpa", "asm", "bits", "gnu", "linux", "net", "netinet", "sys"}
THIRD_PARTY = re.compile(r"(spdlog|CLI|nlohmann|fmt|bpf|xdp|toml\+\+)/|rte_|relacy|catch2")

# Folder: the folders it may include, and whether libc, the whole C++ library and other
# libraries are open to it. The longest matching folder counts.
RULES = {
    "shm": ({"shm"}, {"libc"}),
    "preload": ({"shm", "preload"}, {"libc"}),
    "monitor": ({"shm", "monitor", "tilera"}, {"libc", "library", "third-party"}),
    "monitor/core": ({"shm", "monitor/core"}, set()),
    "nocsim": ({"nocsim"}, {"libc", "library"}),
    "tilera": ({"shm", "monitor/core", "tilera"}, set()),  # what runs on a tile
    "tilera/tilegx/tmc.h": ({"tilera"}, {"library"}),
    "tilera/sim_noc.h": ({"nocsim", "tilera"}, {"library"}),
    "tilera/sim": ({"shm", "monitor/core", "nocsim", "tilera"}, {"libc", "library"}),
    "tilera/dlibos": ({"shm", "nocsim", "tilera"}, {"libc", "library"}),
    "bench": ({"shm", "bench"}, {"libc", "library"}),
    "examples": (set(), {"libc", "library"}),
}


def rule_of(path):
    matching = [f for f in RULES if path.is_relative_to(f)]
    return RULES[max(matching, key=len)]


def is_libc(header):
    folder, _, rest = header.partition("/")
    return header.endswith(".h") and (folder in LIBC_FOLDERS if rest else True)


def may_include_system(path, header, allowed):
    if THIRD_PARTY.match(header):
        return "third-party" in allowed
    if header == "errno.h" or header in FREESTANDING:
        return True
    if header == "sys/socket.h" and path.is_relative_to("shm"):
        return path.name == "bell.h"  # no sockets in the contract, but one through which nothing is sent
    return ("libc" in allowed and is_libc(header)) or "library" in allowed


def may_include_own(path, header, allowed):
    target = header if "/" in header else str(path.parent / header)
    if not (sources.ROOT / target).exists():
        target = str(path.parent / header)
    return any(target.startswith(f + "/") for f in allowed)


def complaints():
    for path in sources.code(*(f for f in RULES if "/" not in f)):
        own, allowed = rule_of(path)
        for number, line in sources.lines(path):
            match = re.match(r'\s*#\s*include\s*([<"])(.+?)[>"]', line)
            if not match:
                continue
            quote, header = match.groups()
            fine = (may_include_system(path, header, allowed) if quote == "<"
                    else may_include_own(path, header, own))
            if not fine:
                yield f"{path}:{number}: may not include {header}"


sources.finish(list(complaints()))
