#!/usr/bin/env python3
"""A forked child, which has never spoken to the coordinator, hears that its client was killed."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "apps"))
from rig import check, run  # noqa: E402

CASES = 8


def children_hear_of_it(rig):
    server = rig.script(pathlib.Path(__file__).with_name("child_server.py"))
    for _ in range(CASES):
        line = server.line(seconds=20)
        check(line.endswith("good"), line)
    server.finish()
    rig.check_accelerated(at_least=CASES)
    rig.check_nothing_left()


run(children_hear_of_it, seconds=60)
