#!/usr/bin/env python3
"""A client's record says another length than it has: its connection ends, and nothing else."""
from echo import check, program, run

# Longer than what there is by one, and by far; shorter, so that a length is read out of the text.
LIES = {"20": ["5 first", "ECONNRESET"],
        "0xffffffff": ["5 first", "ECONNRESET"],
        "4": ["5 first", "4 This"]}


def the_connection_ends(rig):
    if rig.native:
        return  # there is no memory to lie in
    for length, expected in LIES.items():
        before = rig.status()["resets_total"]
        said = rig.output([program(rig, "lying_records"), length]).split("\n")
        check([line.strip() for line in said if line] == expected, f"with length {length} the server reads {said}")
        check(rig.status()["resets_total"] > before, "nobody counts the reset")


run(the_connection_ends, seconds=30)
