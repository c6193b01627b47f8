"""one_side.py PROGRAM RESULT BUILD [--native]: runs one program one way; RESULT gets what it found."""
import json
import sys
import time

import side as sides
from catalogue import PROGRAMS
from side import Failure, run


def exercise(program, rig):
    side = sides.Side(rig)
    found = {"native": rig.native, "at": time.time(), "steps": side.steps, "rates": side.rates}
    begin = time.monotonic()
    try:
        program.exercise(side)
    except Exception as error:  # whatever it is, it is an outcome like others
        found["error"] = sides.shortened(str(error) or repr(error))
        rig.tell_evidence()
    found["seconds"] = round(time.monotonic() - begin, 1)
    try:
        found["status"] = rig.status()
        side.stop_all()
        rig.check_nothing_left()
    except (Failure, OSError, ValueError) as error:
        found["coordinator"] = sides.shortened(str(error))
        rig.tell_evidence()
    with open(result, "w") as file:
        json.dump(found, file, indent=1)


name, result = sys.argv[1:3]
sys.argv[1:3] = []
wanted = next(program for program in PROGRAMS if program.name == name)
run(lambda rig: exercise(wanted, rig), wanted.seconds)
