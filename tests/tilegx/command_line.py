#!/usr/bin/env python3
"""tilera/build-tilegx as far as it needs no compiler: its options."""
import pathlib
import subprocess
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "tilera/build-tilegx"


def run(*arguments):
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, timeout=60)


class Options(unittest.TestCase):
    def test_a_bad_option_is_refused_with_one_line(self):
        for bad in ("--bogus", "--bogus=1", "extra", "--prefix", "--prefix=", "--out=", "--jobs=x", "--jobs=0", "-h",
                    "--prefix=/a folder"):
            with self.subTest(bad):
                result = run(bad)
                self.assertEqual((result.returncode, result.stdout), (2, ""))
                self.assertEqual(len(result.stderr.splitlines()), 1)

    def test_help_names_every_option(self):
        result = run("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for option in ("--prefix", "--out", "--report", "--jobs"):
            self.assertIn(option, result.stdout)


unittest.main()
