#!/usr/bin/env python3
"""Processes that talk over a socket pair are killed at any moment: what they wrote arrives, whole and in order.

How much of it went through shared memory is up to the load of the machine.
"""
from echo import check, program, run

ROUNDS = 60


def what_was_written_arrives(rig):
    for how in ("asks", "streams", "polls"):
        seed = rig.random.randrange(1 << 30)
        said = rig.output([program(rig, "pair_exchange"), ROUNDS, seed, how], seconds=100)
        check(int(said) > 0, f"seed {seed}, {how}: {said} messages in {ROUNDS} rounds")


run(what_was_written_arrives, seconds=150)
