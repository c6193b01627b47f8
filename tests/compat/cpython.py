"""CPython's own tests, case by case."""
import contextlib
import json
import os
import pathlib
import signal
import time

from side import Failure, Side, check

PYTHON = "/usr/bin/python3.11"
DRIVER = pathlib.Path(__file__).resolve().parent / "cpython_driver.py"
QUIET_SECONDS = 60  # the slowest case takes less than half of that
HANGS_CUT = 6  # before the rest of a module is given up


def run_module(side: Side, module):
    """Every case of the module becomes a step. One that hangs is cut, and the rest runs on."""
    hung = []
    while True:
        stuck, status = run_once(side, module, hung)
        if stuck is None:
            break
        hung.append(stuck)
        side.steps[stuck] = {"outcome": "hang", "why": f"nothing for {QUIET_SECONDS} s"}
        print(f"HANG {stuck}", flush=True)
        if len(hung) == HANGS_CUT:
            raise Failure(f"{len(hung)} cases hang, the others were not run")
    check(status >= 0, f"{module} was killed by signal {-status}")
    check(side.steps, f"{module} ran no case")


def run_once(side, module, without):
    """Returns the case that hangs, if one does, and how the module ended."""
    events = side.path(f"{module}.{len(without)}.events")
    work = side.path(f"work.{len(without)}")
    os.mkdir(work)
    open(events, "w").close()
    command = [PYTHON, DRIVER, events, "-v", "-u", "network"]
    for case in without:
        command += ["-i", case]
    process = side.start(["env", "-C", work, *command, module])
    seen, case, last = 0, None, time.monotonic()
    while True:
        ended = not process.running()
        lines = open(events).read().splitlines(keepends=True)
        for line in lines[seen:]:
            if not line.endswith("\n"):
                break
            seen, last = seen + 1, time.monotonic()
            case = note(side, json.loads(line), case)
        if ended:
            if case is not None:
                side.steps[case] = {"outcome": "crash", "why": f"status {process.status()}"}
            return None, process.status()
        if time.monotonic() - last > QUIET_SECONDS:
            side.rig.tell_evidence()
            process.send(signal.SIGUSR1)  # faulthandler tells where every thread is
            time.sleep(2)
            print(process.log()[-6000:], flush=True)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
                process.kill()
            check(case is not None, f"{module} hangs outside of its cases")
            return case, None
        time.sleep(0.1)


def note(side, event, running):
    """Takes one line of the driver; the case that runs after it, or None."""
    name = event["case"]
    kind = event["event"]
    if kind == "start":
        return name
    if kind == "outcome" and side.steps.get(name, {}).get("outcome") in (None, "ok", "skipped"):
        side.steps[name] = {key: event[key] for key in ("outcome", "why", "seconds")
                            if key in event}
    return None if kind == "stop" else running
