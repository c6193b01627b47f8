"""Writes docs/compatibility.md from what the runs have found."""
import os
import pathlib
import re
import subprocess

import comparison

HEAD = """# What runs under Sluice

Written by `tests/run --apps=page`; not by hand. Each program ran natively and preloaded
(tests/compat): the same steps, which have to come out alike, down to each test case of CPython.
{machine}

"Same" means that every step did. A throughput is the ratio of one short preloaded run to one short
native run on a machine that did other things too, and says little more than the order of magnitude:
figures are in the README. Connections are
those that went through shared memory; where some went to the kernel, the reasons (sluice(1)) follow.

"""
PROGRAMS_TABLE = """## Programs

| program | version | what was run | outcome | accelerated | preloaded : native |
|---|---|---|---|---|---|
"""
CPYTHON_TABLE = """
## CPython's own tests

Version {version}, case by case. What is skipped or fails natively has to do so preloaded.

| module | cases | outcome | accelerated |
|---|---|---|---|
"""
DIFFERENCES = """
## What differs

"As documented" refers to the rows of [divergences.md](divergences.md) that name the step. A step that
comes out differently in two native runs proves nothing either way and is only listed.

"""
SAME_TIME_SECONDS = 1200  # between runs whose throughput may be compared
COUNTED = {"accelerated_total": ("connection", "connections"), "pipes_total": ("pipe", "pipes"),
           "socketpairs_total": ("socket pair", "socket pairs"),
           "unix_total": ("AF_UNIX socket", "AF_UNIX sockets")}


def write(path, results, programs, expected):
    rows = []
    for program in programs:
        native, preloaded = (results.load(program, kind) for kind in ("native", "preloaded"))
        if native is None or preloaded is None:
            print(f"{program.name} has not run: it is not on the page")
            continue
        again = results.load(program, "again")
        verdict = comparison.Verdict(program, native, preloaded, again, expected)
        rows.append((program, native, preloaded, verdict))
    python = [row for row in rows if row[0].name.startswith("cpython/")]
    text = HEAD.format(machine=machine(results.build)) + PROGRAMS_TABLE
    for program, native, preloaded, verdict in rows:
        if not program.name.startswith("cpython/"):
            text += line(program.name, program.version(), program.what,
                         outcome(native, preloaded, verdict), acceleration(program, preloaded),
                         ratios(native, preloaded))
    if python:
        text += CPYTHON_TABLE.format(version=python[0][0].version())
        for program, native, preloaded, verdict in python:
            text += line(program.name.removeprefix("cpython/"), cases(preloaded),
                         outcome(native, preloaded, verdict), acceleration(program, preloaded))
    text += DIFFERENCES + ("".join(differences(rows)) or "Nothing.\n")
    path.write_text(text)


def line(*cells):
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |\n"


def machine(build):
    commit = subprocess.run(["git", "-C", pathlib.Path(__file__).parent, "rev-parse", "--short",
                             "HEAD"], capture_output=True, text=True).stdout.strip()
    options = (build / "meson-info" / "intro-buildoptions.json").read_text()
    kind = re.search(r'"name": "buildtype", "value": "(\w+)"', options)
    return (f"Commit {commit}, build type {kind[1] if kind else 'unknown'}, "
            f"{os.cpu_count()} CPUs, Linux {os.uname().release.split('-')[0]}.")


def outcome(native, preloaded, verdict):
    steps = len(native["steps"])
    parts = []
    if verdict.failures:
        parts.append(f"**{len(verdict.failures)} of {steps} differ**")
    if verdict.expected:
        parts.append(f"{len(verdict.expected)} of {steps} differ as documented")
    return "; ".join(parts) or f"same ({steps})"


def cases(side):
    counts = {}
    for step in side["steps"].values():
        counts[step["outcome"]] = counts.get(step["outcome"], 0) + 1
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(),
                                                               key=lambda item: -item[1]))


def acceleration(program, side):
    status = side.get("status", {})
    counts = [f"{status[key]:,} {names[status[key] != 1]}" for key, names in COUNTED.items()
              if status.get(key)]
    reasons = [f"{name} {count:,}" for name, count in status.get("fallback_total", {}).items()
               if count]
    text = ", ".join(counts) or f"none: {program.on_kernel or 'see below'}"
    return text + (f"; on the kernel: {', '.join(reasons)}" if reasons else "")


def ratios(native, preloaded):
    if abs(native.get("at", 0) - preloaded.get("at", 0)) > SAME_TIME_SECONDS:
        return "-"
    found = []
    for name, (value, unit) in native["rates"].items():
        if name in preloaded["rates"] and value:
            found.append(f"{name.removesuffix(' ' + unit)}: {preloaded['rates'][name][0] / value:.2g}x")
    return "<br>".join(found) or "-"


def differences(rows):
    for program, _, _, verdict in rows:
        for title, found in (("not as it should be", verdict.failures),
                             ("as documented", verdict.expected),
                             ("between two native runs", verdict.unsteady)):
            for step, one, other in found:
                yield (f"- {program.name}, {step} ({title}): natively {brief(one)}, "
                       f"preloaded {brief(other)}\n")
        for step in verdict.broken:
            yield f"- {program.name} fails natively too: {brief(step)}\n"


def brief(text):
    """Without what changes from run to run."""
    text = re.sub(r"/tmp/sluice-test\.\w+", "DIR", " ".join(text.split()))
    text = re.sub(r"(127\.0\.0\.1[:/ ])\d+", r"\1PORT", text)
    return text[:160] or "nothing"
