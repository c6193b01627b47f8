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


class Dlibos(Commands):
    QUICK = ["--cycles=40000", "--warm-up=20000", "--most=5"]
    KEYS = {"simulated", "workload", "mesh", "tiles", "queues", "protection", "kind", "driver", "stack", "application", "pipelines", "requests_per_s",
            "bound_requests_per_s", "p50_us", "p99_us", "messages_per_request", "copied_bytes_per_request", "busy", "busiest_link",
            "wire_gbit_per_s", "lost", "costs"}

    def rows(self, *options, mesh="4x4", quick=QUICK):
        status, out, err = self.call(self.build.sluice, "bench", "dlibos", "--json=-", f"--mesh={mesh}", *quick, *options)
        self.assertEqual((status, err), (0, ""))
        return json.loads(out)

    def test_every_combination_has_a_row(self):
        rows = self.rows("--queues=noc,divided,shared")
        self.assertEqual([(r["workload"], r["queues"], r["protection"]) for r in rows],
                         [(workload, queues, protection) for workload in ("web", "memcached")
                          for queues in ("noc", "divided", "shared") for protection in ("on", "off")])
        for row in rows:
            self.assertLessEqual(self.KEYS, set(row))
            self.assertEqual((row["simulated"], row["kind"], row["lost"]), (True, "best", 0))
            self.assertEqual(row["driver"] + row["stack"] + row["application"], 16)
            self.assertGreater(row["requests_per_s"], 1e5)
            self.assertTrue(0 < row["p50_us"] <= row["p99_us"], row)
            self.assertEqual(row["busiest_link"] > 0, row["queues"] == "noc")  # rings are in memory
            self.assertEqual(row["copied_bytes_per_request"] > 0, row["protection"] == "on")
            self.assertLessEqual(row["simulated_splits"], 5)

    def test_the_same_seed_gives_the_same_rows(self):
        first = self.rows("--workload=web")
        self.assertEqual(first, self.rows("--workload=web"))
        self.assertNotEqual(first, self.rows("--workload=web", "--seed=2"))

    def test_costs_are_what_was_put_in(self):
        web, = self.rows("--workload=web", "--protection=on", "--split=2,5,9")
        slow, = self.rows("--workload=web", "--protection=on", "--split=2,5,9", "--cost=application=9000,stack-rx=801", "--scale=2")
        self.assertEqual((slow["costs"]["application"], slow["costs"]["stack-rx"], slow["costs"]["message"]), (18000, 1602, web["costs"]["message"]))
        self.assertLess(slow["requests_per_s"], web["requests_per_s"] / 2)
        self.assertEqual((web["kind"], web["driver"], web["stack"], web["application"]), ("given", 2, 5, 9))

    def test_a_role_has_a_row_for_each_number_of_its_tiles(self):
        rows = self.rows("--workload=web", "--protection=on", "--by-role=stack")
        self.assertEqual([row["stack"] for row in rows], list(range(1, 15)))

    def test_what_arrives_at_a_rate_is_served(self):
        row, = self.rows("--workload=memcached", "--protection=on", "--rate=500000", "--split=2,5,9", quick=["--cycles=2000000"])
        self.assertTrue(450_000 < row["requests_per_s"] < 550_000, row)
        self.assertEqual(row["refused"], 0)

    def test_short_connections_are_the_coordinators_work(self):
        short, = self.rows("--workload=web", "--protection=on", "--requests-per-connection=1")
        self.assertEqual(short["driver"] + short["stack"] + short["application"], 15)
        self.assertGreater(short["coordinator_busy"], 0.9)
        self.assertLess(short["requests_per_s"], 1.2e9 / short["costs"]["coordinator"])

    def test_what_a_message_costs_grows_with_hops_on_the_mesh_and_with_senders_in_memory(self):
        rows = self.rows("--round-trips", "--queues=noc,divided,shared")
        self.assertEqual([(r["queues"], r["senders"], r["hops"]) for r in rows],
                         [(queues, senders, hops) for queues in ("noc", "divided", "shared") for senders in (1, 15) for hops in (1, 3)])
        cycles = [r["half_round_trip_cycles"] for r in rows]
        self.assertEqual(cycles[1] - cycles[0], 2)
        self.assertEqual(cycles[0:2], cycles[2:4])
        self.assertGreater(cycles[6], cycles[4] + 10)
        self.assertGreater(min(cycles[4:]), max(cycles[:4]))

    def test_it_is_drawn(self):
        path = os.path.join(self.directory, "picture.svg")
        self.rows(f"--plot={path}", mesh="2x2,4x4")
        with open(path) as picture:
            self.assertIn("memcached, noc, unprotected", picture.read())

    def test_the_inputs_say_where_they_come_from(self):
        status, out, _ = self.call(self.build.sluice, "bench", "dlibos", "--inputs", "--cost=scan=17")
        self.assertEqual(status, 0)
        for word in ("web", "memcached", "driver-rx", "measured:", "assumed", "17"):
            self.assertIn(word, out)

    def test_the_table_says_that_it_is_simulated(self):
        status, out, _ = self.call(self.build.sluice, "bench", "dlibos", "--mesh=4x4", *self.QUICK)
        self.assertEqual((status, out.split(":")[0], out.count("\n")), (0, "SIMULATED", 6))

    def test_wrong_usage_is_one_line_and_status_2(self):
        for options in (["--mesh=6"], ["--mesh=1x2"], ["--mesh=99x99"], ["--mesh=0x6"], ["--workload=mail"], ["--queues=auto"], ["--protection=maybe"],
                        ["--split=1,2"], ["--split=1,0,3"], ["--split=20,20,20"], ["--split=1,40,1", "--mesh=7x7"], ["--split=1,1,1", "--by-role=stack"],
                        ["--by-role=cook"], ["--cost=application"], ["--cost=speed=1"], ["--cost=scan=x"], ["--cost=reply-bytes=0"], ["--scale=0"],
                        ["--cycles=1"], ["--rate=0"], ["--most=0"], ["--seed=x"], ["--hand-back=never"], ["--requests-per-connection=0"], ["--requests-per-connection=1", "--mesh=1x3"],
                        ["--requests-per-connection=1", "--mesh=4x4", "--split=2,5,9"], ["--round-trips", "--plot=x"], ["--round-trips", "--mesh=1x9"], ["--spread=none"], ["extra"]):
            status, out, err = self.call(self.build.sluice, "bench", "dlibos", *options)
            self.assertEqual((status, out), (2, ""), options)
            self.assertEqual(err.count("\n"), 1, err)


main()
