#!/usr/bin/env python3
"""docs/calls.md says what symbols.def says."""
import difflib
import subprocess
import sys

import sources

GENERATOR, LIST, PAGE = (sources.ROOT / p for p in
                         ("preload/generate", "preload/symbols.def", "docs/calls.md"))
if not GENERATOR.exists():
    print("no generator yet")
    sys.exit(sources.SKIP)
if not PAGE.exists():
    sources.finish(["docs/calls.md is missing: preload/generate --calls preload/symbols.def writes it"])
wanted = subprocess.run([sys.executable, GENERATOR, "--calls", LIST], check=True,
                        capture_output=True, text=True).stdout
sources.finish(list(difflib.unified_diff(PAGE.read_text().splitlines(), wanted.splitlines(),
                                         "docs/calls.md", "symbols.def", lineterm="")))
