#!/usr/bin/env python3
"""What `meson install` installs works where it is, and finds its own parts."""
import json
import os
import shutil

from commands import Commands, main


class Installed(Commands):
    def test_a_staged_installation_finds_its_library_and_daemon(self):
        staged = os.path.join(self.directory, "staged")
        status, out, err = self.call("meson", "install", "-C", self.build.directory, "--no-rebuild",
                                     "--destdir", staged)
        self.assertEqual(status, 0, out + err)
        found = {name: os.path.join(folder, name) for folder, _, names in os.walk(staged)
                 for name in names}
        self.assertLessEqual({"sluice", "sluiced", "libsluice.so"}, set(found))
        self.build = type(self.build)(staged)
        self.build.sluice = found["sluice"]
        status, out, err = self.sluice("run", "--require", "--", "sh", "-c", "echo $LD_PRELOAD")
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(out.strip(), found["libsluice.so"])
        self.assertEqual(self.sluice("stop"), (0, "", ""))
        self.benchmarks_run()

    def benchmarks_run(self):
        for options in (["ipc", "--kinds=pipe", "--sizes=8", "--ways=kernel,sluice"], ["connect", "--workers=0", "--kinds=unix"]):
            status, out, err = self.call(self.build.sluice, "bench", *options, "--rounds=1", "--seconds=0.02", "--json=-")
            self.assertEqual(status, 0, err)
            self.assertTrue(all(row["rounds"] == 1 for row in json.loads(out)), out)

    def test_without_a_library_the_command_runs_on_the_kernel(self):
        alone = os.path.join(self.directory, "bin", "sluice")
        os.mkdir(os.path.dirname(alone))
        shutil.copy(self.build.sluice, alone)
        self.build.sluice = alone
        if self.sluice("run", "--require", "--", "true")[2].count("libsluice.so") == 0:
            self.skipTest("Sluice is installed on this machine")
        self.runs_on_the_kernel("libsluice.so")


main()
