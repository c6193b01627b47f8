"""Runs CPython's own tests as `python -m test` does, and writes down each case.

cpython_driver.py FILE ARGUMENTS...   FILE gets a line of JSON when a case starts and one when it
has ended, so that a reader knows which one is running while nothing comes.
"""
import json
import os
import runpy
import sys
import time

from test.support import testresult

FILE = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
SELF = os.getpid()
begun = time.monotonic()


def tell(kind, test, **more):
    if os.getpid() == SELF:  # some cases fork, and their children come through here too
        line = {"event": kind, "case": test.id(), "seconds": round(time.monotonic() - begun, 2),
                **more}
        os.write(FILE, json.dumps(line).encode() + b"\n")


class RecordedResult(testresult.RegressionTestResult):
    def startTest(self, test):
        global begun
        begun = time.monotonic()
        tell("start", test)
        super().startTest(test)

    def stopTest(self, test):
        super().stopTest(test)
        tell("stop", test)

    def addSuccess(self, test):
        super().addSuccess(test)
        tell("outcome", test, outcome="ok")

    def addFailure(self, test, error):
        super().addFailure(test, error)
        tell("outcome", test, outcome="failed", why=last_line(error))

    def addError(self, test, error):
        super().addError(test, error)
        tell("outcome", test, outcome="error", why=last_line(error))

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            tell("outcome", test, outcome="failed", why=f"{subtest}: {last_line(error)}")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        tell("outcome", test, outcome="skipped")

    def addExpectedFailure(self, test, error):
        super().addExpectedFailure(test, error)
        tell("outcome", test, outcome="expected failure")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        tell("outcome", test, outcome="unexpected success")


def last_line(error):
    return f"{error[0].__name__}: {error[1]}"[:300]


testresult.RegressionTestResult = RecordedResult
sys.argv = ["test", *sys.argv[2:]]
# Under the module's own name: multiprocessing's spawned children look it up again.
runpy.run_module("test", run_name="__main__", alter_sys=True)
