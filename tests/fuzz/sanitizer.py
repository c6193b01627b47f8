"""Honest programs under a libsluice.so that was built with AddressSanitizer."""
import os
import subprocess


def load_first(rig):
    """The library's sanitizer has to be loaded before everything else, also into programs without one. Whether it has one."""
    with open(rig.build.library, "rb") as file:
        if b"__asan_init" not in file.read():
            return False
    runtime = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    rig.build.library = os.path.realpath(runtime.stdout.strip()) + ":" + rig.build.library
    return True
