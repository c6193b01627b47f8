#!/usr/bin/env python3
"""Memory orders: no volatile, one full fence, and every atomic operation names its order."""
import re

import sources

FENCE = "shm/wake.h"
# Between a thread and its own signal handlers only the compiler can reorder.
HANDLERS = "preload/deferral.h"
VOLATILE = re.compile(r"(?<!asm )(?<!asm__ )\bvolatile\b")
SEQ_CST = re.compile(r"memory_order_seq_cst|memory_order::seq_cst|__ATOMIC_SEQ_CST|__sync_")
COMPILER_BARRIER = re.compile(r'asm volatile\(""|atomic_signal_fence')
# A call of one of these without an order is sequentially consistent.
UNORDERED = re.compile(r"(?:\.|->)(?:load\(\)|(?:exchange|fetch_\w+|compare_exchange_\w+)"
                       r"\((?:(?!memory_order|\border\b).)*;)")


def complaints():
    for path in sources.code("shm", "preload"):
        for number, line in sources.lines(path, comments=False):
            where = f"{path}:{number}"
            if VOLATILE.search(line):
                yield f"{where}: volatile orders nothing: {line.strip()}"
            if str(path) == HANDLERS and "atomic_signal_fence" in line:
                continue
            if SEQ_CST.search(line) and str(path) != FENCE:
                yield f"{where}: the full fence is in {FENCE} only: {line.strip()}"
            if COMPILER_BARRIER.search(line):
                yield f"{where}: a barrier for the compiler only: {line.strip()}"
            if UNORDERED.search(line):
                yield f"{where}: an atomic operation without its order: {line.strip()}"


sources.finish(list(complaints()))
