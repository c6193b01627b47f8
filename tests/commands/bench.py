#!/usr/bin/env python3
"""sluice bench: what it writes can be relied on, and it leaves nothing behind."""
import glob
import json
import os
import signal
import subprocess

from commands import Commands, main

QUICK = ["--seconds=0.2", "--rounds=2"]
KEYS = {"queues", "clients", "active", "depth", "requests_per_s", "p50_us", "p99_us", "p999_us",
        "cycles_per_request", "client_ns_per_request", "loop", "rounds"}


class Requests(Commands):
    def rows(self, *options):
        status, out, err = self.call(self.build.sluice, "bench", "requests", "--json=-",
                                            *QUICK, *options)
        self.assertEqual((status, err), (0, ""))
        return json.loads(out)

    def test_each_case_has_a_row_for_each_kind_of_queue(self):
        rows = self.rows("--clients=1,...,4", "--active=2", "--depth=1,8")
        self.assertEqual([(r["queues"], r["clients"], r["active"], r["depth"]) for r in rows],
                         [(queues, clients, min(2, clients), depth) for clients in (1, 2, 4)
                          for depth in (1, 8) for queues in ("divided", "shared")])
        for row in rows:
            self.assertLessEqual(KEYS, set(row))
            self.assertGreater(row["requests_per_s"], 100, row)
            self.assertTrue(0 < row["p50_us"] <= row["p99_us"] <= row["p999_us"], row)
            self.assertGreater(row["cycles_per_request"], 0)

    def test_an_open_loop_keeps_its_rate(self):
        closed, opened = self.rows("--clients=2", "--rate=2000", "--queues=divided")
        self.assertEqual((closed["loop"], opened["loop"], opened["rate"]), ("closed", "open", 2000))
        self.assertTrue(1000 < opened["requests_per_s"] < 2100, opened)

    def test_a_coordinator_that_sleeps_answers_too(self):
        for row in self.rows("--clients=3", "--poll=adaptive", "--rate=200"):
            self.assertGreater(row["requests_per_s"], 0, row)

    def test_a_flooder_is_not_in_the_latencies(self):
        for row in self.rows("--clients=2", "--flooders=1"):
            self.assertEqual(row["flooders"], 1)
            self.assertGreater(row["p50_us"], 0)

    def test_a_file_gets_the_rows_and_the_output_a_table(self):
        path = os.path.join(self.directory, "rows.json")
        status, out, _ = self.call(self.build.sluice, "bench", "requests", *QUICK,
                                          "--clients=1", f"--json={path}")
        self.assertEqual(status, 0)
        self.assertEqual(len(json.load(open(path))), 2)
        self.assertEqual([line.split()[0] for line in out.splitlines()], ["queues", "divided", "shared"])

    def test_a_network_on_chip_is_simulated_and_says_so(self):
        options = ["--queues=divided,shared,noc", "--clients=1,35,69", "--active=1"]
        rows = self.rows(*options)
        self.assertEqual([row["simulated"] for row in rows], [False, False, True] * 3)
        simulated = rows[2::3]
        self.assertEqual([row["mesh"] for row in simulated], ["tilegx36", "tilegx36", "tilegx72"])
        self.assertEqual([row["relays"] for row in simulated], [0, 0, 2])
        for row in simulated:
            self.assertLessEqual(KEYS - {"client_ns_per_request"}, set(row))
            self.assertNotIn("line_round_trip_us", row)  # nothing of this machine
            self.assertAlmostEqual(row["p50_us"], row["p50_cycles"] / 1200, 6)
            self.assertTrue(0 < row["p50_cycles"] <= row["p99_cycles"] <= row["p999_cycles"], row)
            self.assertGreater(row["cycles_per_request"], 0)
        # The way through a relay is longer, and all of it is the same each time.
        self.assertGreater(simulated[2]["p50_cycles"], simulated[1]["p50_cycles"])
        self.assertEqual(simulated, self.rows("--queues=noc", *options[1:]))

    def test_an_open_loop_over_simulated_tiles_keeps_its_rate(self):
        _, row = self.rows("--queues=noc", "--clients=8", "--rate=1000000")
        self.assertTrue(0.9e6 < row["requests_per_s"] < 1.1e6, row)

    def test_the_table_marks_what_is_simulated(self):
        status, out, _ = self.call(self.build.sluice, "bench", "requests", *QUICK, "--queues=noc", "--clients=4")
        self.assertEqual(status, 0)
        self.assertIn("noc~sim", out)
        self.assertIn("SIMULATED", out)

    def test_what_no_chip_has_tiles_for_has_no_row(self):
        status, out, err = self.call(self.build.sluice, "bench", "requests", "--json=-", *QUICK,
                                     "--queues=noc", "--clients=71,72")
        self.assertEqual((status, len(json.loads(out)), len(err.splitlines())), (0, 1, 1))

    def test_wrong_usage_is_one_line_and_status_2(self):
        for options in (["--clients=0"], ["--queues=noc", "--by-turns"], ["--clients=4,...,2"], ["--clients=..."], ["--clients=1,,2"],
                        ["--clients=x"], ["--depth=65"], ["--queues=noc2"], ["--rate=-1"], ["--seconds=0"]):
            status, out, err = self.call(self.build.sluice, "bench", "requests", *options)
            self.assertEqual((status, out), (2, ""), options)
            self.assertEqual(err.count("\n"), 1, err)

    def test_an_interrupt_keeps_what_was_measured_and_leaves_nothing(self):
        environment = os.environ | {"TMPDIR": self.directory}
        path = os.path.join(self.directory, "rows.json")
        process = subprocess.Popen(
            [self.build.sluice, "bench", "requests", "--clients=1,2", "--seconds=0.3", "--rounds=2",
             "--queues=divided", f"--json={path}"], env=environment, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        process.stdout.readline()  # the first row
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(20), 130)
        process.stdout.close()
        self.assertGreaterEqual(len(json.load(open(path))), 1)
        self.assertEqual(glob.glob(os.path.join(self.directory, "sluice-bench.*")), [])


class Limits(Commands):
    def test_each_size_has_a_row(self):
        status, out, err = self.call(self.build.sluice, "bench", "limits", "--sizes=1,2,...,8,64K", "--seconds=0.01", "--json=-")
        self.assertEqual((status, err), (0, ""))
        rows = json.loads(out)
        self.assertEqual([row["size"] for row in rows], [1, 2, 4, 8, 65536])
        for row in rows:
            for figure in ("line_round_trip_us", "ring_messages_per_s", "copy_gb_per_s"):
                self.assertGreater(row[figure], 0, row)

    def test_two_that_share_a_cpu_take_turns(self):
        cpu = min(os.sched_getaffinity(0))
        status, out, _ = self.call(self.build.sluice, "bench", "limits", "--sizes=8", "--seconds=0.01", f"--cpu={cpu}",
                                   f"--peer-cpu={cpu}")
        self.assertEqual((status, out.count("\n")), (0, 2))

    def test_wrong_usage_is_one_line_and_status_2(self):
        for options in (["--sizes=0"], ["--sizes=1G"], ["--sizes=128M"], ["--sizes=K"], ["--seconds=0"]):
            status, out, err = self.call(self.build.sluice, "bench", "limits", *options)
            self.assertEqual((status, out), (2, ""), options)
            self.one_line(err, "--")


main()
