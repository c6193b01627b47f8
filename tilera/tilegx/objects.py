"""What is compiled for a tile, how, and what it may need from whoever puts it on one."""
import concurrent.futures
import os
import pathlib
import subprocess
from dataclasses import dataclass, field

import disassembly

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tilera" / "tilegx"

FLAGS = ["-std=c++20", "-O2", "-ffreestanding", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics",
         "-fno-asynchronous-unwind-tables", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror"]
HEADERS = ["-I", str(ROOT), "-isystem", str(HERE / "include")]

# Symbols that no object defines. docs/tilera.md says what each has to do; a port provides these and nothing else.
MAY_NEED = {"memcpy", "memset", "__divdi3", "__udivdi3"}


@dataclass
class Object:
    source: str  # from the root
    path: pathlib.Path
    error: str = ""
    sections: dict = field(default_factory=dict)  # text, data, bss: bytes
    defined: set = field(default_factory=set)
    undefined: set = field(default_factory=set)
    functions: list = field(default_factory=list)  # disassembly.Function

    def disassemble(self, objdump):
        text = output_of(objdump, "-d", "-r", "-C", str(self.path))
        self.path.with_suffix(".s").write_text(text)
        self.functions = disassembly.parse(text, output_of(objdump, "-r", str(self.path)))


def sources():
    found = [*ROOT.glob("monitor/core/*.cpp"), *ROOT.glob("tilera/*.cpp"), *HERE.glob("units/*.cpp")]
    return sorted(str(p.relative_to(ROOT)) for p in found)


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def compile_one(compiler, source, out):
    path = out / (source.replace("/", "-").removesuffix(".cpp") + ".o")
    run = subprocess.run([*compiler, *FLAGS, *HEADERS, "-c", str(ROOT / source), "-o", str(path)], capture_output=True, text=True)
    return Object(source, path, run.stderr if run.returncode else "")


def compile_all(compiler, out, jobs=os.cpu_count()):
    """All sources with this command, which FLAGS and HEADERS are added to."""
    out.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda source: compile_one(compiler, source, out), sources()))


def look_at(objects, nm, size):
    """Fills in what the objects have and lack."""
    for o in objects:
        for line in output_of(nm, "--format=posix", str(o.path)).splitlines():
            name, kind = line.split()[:2]
            (o.undefined if kind in "Uvw" else o.defined).add(name)
        text, data, bss = output_of(size, str(o.path)).splitlines()[1].split()[:3]
        o.sections = {"text": int(text), "data": int(data), "bss": int(bss)}


def missing_symbols(objects):
    """What they need that none of them has, and who needs it."""
    defined = set().union(*(o.defined for o in objects))
    missing = {}
    for o in objects:
        for name in o.undefined - defined:
            missing.setdefault(name, []).append(o.source)
    return missing
