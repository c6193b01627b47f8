"""What a measurement was made on, and whether that was busy with other things."""

import datetime
import os
import platform
import re
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUSY = 0.1  # CPUs that others use, of which a reader has to hear
SAMPLE_SECONDS = 0.3


def output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except OSError:
        return ""


def text_of(path):
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def commit():
    """Empty for an installation."""
    return output("git", "rev-parse", "--short", "HEAD") if (ROOT / ".git").exists() else ""


def topology():
    """A line for each CPU: its core, socket and caches."""
    lines = []
    for cpu in sorted(os.sched_getaffinity(0)):
        folder = Path(f"/sys/devices/system/cpu/cpu{cpu}")
        siblings = text_of(folder / "topology" / "thread_siblings_list").strip() or "?"
        caches = [f"L{text_of(cache / 'level').strip()} {text_of(cache / 'size').strip()} shared by "
                  f"{text_of(cache / 'shared_cpu_list').strip()}" for cache in sorted((folder / "cache").glob("index*"))]
        lines.append(f"CPU {cpu}: threads of its core {siblings}" + "".join(f", {cache}" for cache in caches))
    return lines


def description():
    cpu = re.search(r"model name\s*:\s*(.*)", text_of("/proc/cpuinfo"))
    return {"commit": commit(), "date": datetime.date.today().isoformat(), "kernel": platform.release(),
            "cpu": cpu[1] if cpu else platform.processor(), "cpus": os.cpu_count(), "topology": topology()}


def busy_and_stolen():
    """Seconds of CPU time so far: used by programs of this machine, and taken by its host."""
    fields = [int(field) for field in text_of("/proc/stat").splitlines()[0].split()[1:9]]
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, _, _, interrupt, soft_interrupt, stolen = fields
    return (user + nice + system + interrupt + soft_interrupt) / tick, stolen / tick


def load():
    """CPUs that others use now, while nothing of ours runs; the load average lags behind."""
    before, start = busy_and_stolen(), time.monotonic()
    time.sleep(SAMPLE_SECONDS)
    after, seconds = busy_and_stolen(), time.monotonic() - start
    return {"load_average": os.getloadavg()[0], "busy_cpus": (after[0] - before[0]) / seconds,
            "stolen_cpus": (after[1] - before[1]) / seconds}


def load_warning(load):
    """Empty if there is nothing to warn of."""
    if max(load["busy_cpus"], load["stolen_cpus"]) < BUSY:
        return ""
    return (f"the machine is loaded: other programs use {load['busy_cpus']:.1f} CPUs, its host takes "
            f"{load['stolen_cpus']:.1f} (load average {load['load_average']:.1f}); they disturb what is measured")
