#!/usr/bin/env python3
"""monitor/core/ calls nothing outside itself: core_is_pure.py LIBCORE."""
import re
import subprocess
import sys

import sources

# What a compiler may call even in freestanding code.
COMPILERS_OWN = re.compile(r"mem(cpy|move|set|cmp)|__cxa_pure_virtual|__stack_chk_fail"
                           r"|_GLOBAL_OFFSET_TABLE_|_ZN6sluice\w*|_ZNK6sluice\w*|_ZTVN6sluice\w*")

symbols = subprocess.run(["nm", "--undefined-only", "--format=posix", sys.argv[1]], check=True,
                         capture_output=True, text=True).stdout
names = {line.split()[0] for line in symbols.splitlines() if line and not line.endswith(":")}
sources.finish([f"monitor/core calls {name}" for name in sorted(names)
                if not COMPILERS_OWN.fullmatch(name)])
