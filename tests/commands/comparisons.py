#!/usr/bin/env python3
"""The parts of sluice bench that run whole programs: what they write can be relied on, and they leave nothing."""
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import unittest
import xml.etree.ElementTree

from bpf import bpf_programs, sockmap_cgroups
from commands import Commands, main, wait_until
from rounds import Ratio


def rows_in(path):
    with open(path) as file:
        return json.load(file)


class Ratios(unittest.TestCase):
    """Of rounds, which say whether they mean something."""

    def test_one_odd_round_does_not_matter(self):
        ratio = Ratio([20, 21, 19, 20, 200], [10, 10, 10, 10, 10])
        self.assertEqual((ratio.value, ratio.low, ratio.high, ratio.doubt()), (2, 1.9, 20, ""))

    def test_where_less_is_better_the_ratio_is_turned_round(self):
        self.assertEqual(Ratio([5, 5, 5], [10, 10, 10], less_is_better=True).value, 2)

    def test_rounds_that_say_nothing_give_no_ratio(self):
        self.assertIn("differ", Ratio([1, 10, 100, 1000, 10], [1, 1, 1, 1, 1]).doubt())
        self.assertIn("few", Ratio([1, 1], [1, 1]).doubt())


class Comparison(Commands):
    """The commands that run whole programs, each several ways."""
    KEYS = {"way", "figure", "rounds", "loaded"}

    def measured(self, command, *options, status=0):
        """The rows, each of which is checked for what holds of all."""
        actual, out, err = self.call(self.build.sluice, "bench", command, "--json=-", *options, timeout=120)
        self.assertEqual(actual, status, out[-500:] + err)
        rows = json.loads(out)
        for row in rows:
            self.assertLessEqual(self.KEYS, set(row), row)
            if row["rounds"]:
                self.assertEqual(len(row["values"]), row["rounds"])
                self.assertTrue(0 <= min(row["values"]) <= row[row["figure"]] <= max(row["values"]), row)
            else:
                self.assertIn("problem", row)
            if row.get("ratio"):
                self.assertTrue(min(row["ratio_rounds"]) <= max(row["ratio_rounds"]))
                self.assertNotIn("ratio_doubt", row)
        return rows

    def is_measured_or_says_why(self, row):
        if row["rounds"] == 0:
            self.assertIn("not measured: ", row["problem"])


class Ipc(Comparison):
    QUICK = ["--rounds=3", "--seconds=0.02"]

    def test_each_case_has_a_row_for_each_way(self):
        rows = self.measured("ipc", *self.QUICK, "--sizes=8,64K", "--cores=two")
        cases = [(kind, measure, size) for kind in ("tcp", "unix", "pipe") for size in (8, 65536)
                 for measure in ("round-trip", "messages" if size == 8 else "bandwidth")]
        ways = {"tcp": ("kernel", "sockmap", "sluice", "limit")}
        wanted = [(*case, way) for case in cases for way in ways.get(case[0], ("kernel", "sluice", "limit"))]
        self.assertEqual([(r["kind"], r["measure"], r["size"], r["way"]) for r in rows], wanted)
        for row in rows:
            if row["way"] == "sockmap":
                self.is_measured_or_says_why(row)
            else:
                self.assertEqual(row["rounds"], 3, row)
                if row["kind"] != "pipe":  # whose reader may always sleep on a busy machine
                    self.assertNotIn("NOT ACCELERATED", row.get("problem", ""))
            self.assertEqual("ratio_rounds" in row, row["way"] != "kernel" and row["rounds"] > 0, row)
            self.assertEqual("of_limit_rounds" in row, row["way"] != "limit" and row["rounds"] > 0, row)

    def test_messages_of_any_size_come_back(self):
        for row in self.measured("ipc", *self.QUICK, "--rounds=1", "--sizes=1,16M", "--ways=kernel,sluice",
                                 "--measures=round-trip", "--cores=one"):
            self.assertEqual(row["rounds"], 1, row)
            self.assertIsNone(row.get("ratio"))  # of one round

    def test_inside_of_sluice_run_the_kernel_is_still_the_kernel(self):
        self.assertEqual(self.call(self.build.sluiced, f"--dir={self.run_dir}")[0], 0)
        status, out, err = self.sluice("run", "--require", "--", self.build.sluice, "bench", "ipc", *self.QUICK, "--sizes=8",
                                       "--kinds=tcp", "--ways=kernel,sluice", "--rounds=1", "--cores=two", "--json=-")
        self.assertEqual((status, len(json.loads(out))), (0, 4), err)
        status, out, _ = self.sluice("status", "--json")
        self.assertEqual((status, json.loads(out)["accelerated_total"]), (0, 0))
        self.assertEqual(self.sluice("stop")[0], 0)

    def test_a_file_that_cannot_be_written_is_told_at_once(self):
        status, out, err = self.call(self.build.sluice, "bench", "ipc", f"--json={self.directory}/none/rows")
        self.assertEqual((status, out), (1, ""))
        self.one_line(err, "sluice: bench: ", "none/rows")

    def test_pairs_run_at_the_same_time(self):
        rows = self.measured("ipc", *self.QUICK, "--rounds=1", "--sizes=64", "--pairs=1,4", "--measures=messages",
                             "--ways=sluice", "--kinds=tcp,pipe")
        self.assertEqual([(r["kind"], r["pairs"], r["cores"], r["rounds"]) for r in rows],
                         [(kind, pairs, cores, 1) for cores in ("two", "one") for kind in ("tcp", "pipe")
                          for pairs in (1, 4)])

    def test_what_protection_costs_has_a_row_for_each_kind(self):
        rows = self.measured("protect", "--rounds=3", "--seconds=0.02", "--parts=entrances,connections")
        figures = ["entrances_per_s"] * 3 + ["system_calls_per_s"] * 3 + ["connections_per_s"] * 3
        self.assertEqual([(r["figure"], r["way"]) for r in rows], list(zip(figures, ("none", "regions", "keys") * 3)))
        for row in rows:
            if row["way"] == "keys" and row["rounds"] == 0:  # of a processor that has none
                self.assertIn("no protection keys", row["problem"])
                continue
            self.assertEqual(row["rounds"], 3, row)
            self.assertNotIn("problem", row)
            self.assertEqual("ratio_rounds" in row, row["way"] != "none", row)

    def test_the_output_is_a_table(self):
        path = os.path.join(self.directory, "rows.json")
        status, out, err = self.call(self.build.sluice, "bench", "ipc", *self.QUICK, "--kinds=unix", "--sizes=8",
                                     "--measures=messages", "--cores=two", f"--json={path}")
        self.assertEqual(status, 0, err)
        self.assertEqual(len(rows_in(path)), 3)
        self.assertRegex(out, r"(?m)^AF_UNIX, 8 B, messages/s +[\d.,]+ ")

    def test_wrong_usage_is_one_line_and_status_2(self):
        for options in (["--sizes=0"], ["--sizes=4,...,2"], ["--sizes=1G"], ["--sizes=128M"], ["--kinds=udp"], ["--pairs=0"],
                        ["--cores=three"], ["--measures="], ["--ways=x"], ["--rounds=0"], ["--seconds=0"], ["extra"]):
            status, out, err = self.call(self.build.sluice, "bench", "ipc", *options)
            self.assertEqual((status, out), (2, ""), options)
            self.one_line(err, "sluice: bench ipc: ")


class Connect(Comparison):
    STEPS = ["connections_per_s", "set_up_us", "connect_us", "coordinator_us", "accept_us", "first_byte_us", "reply_us"]

    def test_a_connection_is_broken_into_steps(self):
        rows = self.measured("connect", "--rounds=1", "--seconds=0.05", "--workers=0", "--ways=kernel,sockmap,divided,shared")
        wanted = [(kind, acceptors, figure, way) for kind in ("tcp", "unix") for acceptors in (1, 2) for figure in self.STEPS
                  for way in ("kernel", "sockmap", "divided", "shared") if (kind, way) != ("unix", "sockmap")]
        self.assertEqual([(r["kind"], r["acceptors"], r["figure"], r["way"]) for r in rows], wanted)
        for row in rows:
            if row["way"] == "sockmap":
                self.is_measured_or_says_why(row)
                continue
            self.assertEqual(row["rounds"], 1, row)
            self.assertNotIn("NOT ACCELERATED", row.get("problem", ""))
            if row["figure"] == "connections_per_s" and row["way"] in ("divided", "shared"):
                asked = row["requests_per_connection"]
                self.assertLess(asked, 1, row)  # granted, also where several accept

    @unittest.skipUnless(shutil.which("wrk"), "wrk is not installed")
    def test_short_connections_of_a_server_with_workers(self):
        rows = self.measured("connect", "--rounds=1", "--seconds=1", "--kinds=unix", "--acceptors=1", "--workers=1,2",
                             "--connections=4", "--ways=kernel,divided")
        rows = [row for row in rows if "app" in row]
        self.assertEqual([(r["variant"], r["way"], r["rounds"]) for r in rows],
                         [(workers, way, 1) for workers in ("1 worker", "2 workers") for way in ("kernel", "divided")])
        for row in rows:
            self.assertNotIn("problem", row)


class Apps(Comparison):
    @unittest.skipUnless(shutil.which("wrk") and shutil.which("redis-benchmark"), "wrk or redis-benchmark is not installed")
    def test_each_server_is_measured_each_way(self):
        rows = self.measured("apps", "--rounds=1", "--apps=nginx,redis", "--connections=2", "--seconds=1",
                             "--ways=kernel,sockmap,divided")
        self.assertEqual([(r["app"], r["way"]) for r in rows],
                         [(app, way) for app in ("nginx", "redis") for way in ("kernel", "sockmap", "divided")])
        for row in rows:
            if row["way"] == "sockmap":
                self.is_measured_or_says_why(row)
            else:
                self.assertEqual(row["rounds"], 1, row)


class All(Comparison):
    def setUp(self):
        super().setUp()
        self.report = os.path.join(self.directory, "report")

    def data(self, name):
        with open(os.path.join(self.report, name + ".json")) as file, \
                open(os.path.join(self.report, name + ".csv"), newline="") as table:
            rows = json.load(file)
            self.assertEqual(len(list(csv.DictReader(table))), len(rows))
        return rows

    def page(self):
        with open(os.path.join(self.report, "index.html")) as file:
            page = file.read()
        self.assertTrue(page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n"))
        self.assertNotRegex(page, r"""(src|href)=["']?(http|//)|@import|url\(""")
        for name in re.findall(r'href="([^"]+)"', page):
            self.assertTrue(os.path.exists(os.path.join(self.report, name)), name)
        for svg in re.findall(r"<svg.*?</svg>", page, re.S):
            xml.etree.ElementTree.fromstring(svg)
        return page

    def test_a_report_stands_by_itself(self):
        status, out, err = self.call(self.build.sluice, "bench", "all", f"--report={self.report}", "--quick", "--only=pairs",
                                     timeout=120)
        self.assertEqual((status, out), (0, ""), err)
        self.assertRegex(err, r"about \d+ s")
        page = self.page()
        self.assertIn("<svg", page)
        rows = self.data("pairs")
        self.assertGreater(len(rows), 10)
        machine = rows_in(os.path.join(self.report, "machine.json"))
        self.assertLessEqual({"kernel", "cpu", "topology", "commit", "load_before", "load_after"}, set(machine))
        self.assertFalse(machine["interrupted"])

    def test_an_interrupted_report_has_what_was_measured(self):
        process = subprocess.Popen([self.build.sluice, "bench", "all", f"--report={self.report}", "--quick"], start_new_session=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_until(lambda: os.path.exists(os.path.join(self.report, "requests-depth.json")), "the first rows", 120)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertGreaterEqual(len(self.data("requests-depth")), 2)
        self.assertIn("interrupted", self.page())

    def test_wrong_usage_is_one_line_and_status_2(self):
        for options in ([], ["--report"], [f"--report={self.report}", "--only=x"]):
            status, out, err = self.call(self.build.sluice, "bench", "all", *options)
            self.assertEqual((status, out), (2, ""), options)
            self.one_line(err, "sluice: bench all: ")


class Ends(Comparison):
    """Of a run that somebody ends."""

    def start(self, *options):
        return subprocess.Popen([self.build.sluice, "bench", *options], start_new_session=True, text=True,
                                env=os.environ | {"TMPDIR": self.directory}, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def test_an_interrupt_keeps_what_was_measured_and_leaves_nothing(self):
        path = os.path.join(self.directory, "rows.json")
        process = self.start("ipc", "--sizes=8", "--kinds=unix,tcp", "--ways=kernel,sluice", "--rounds=1",
                             "--seconds=0.1", f"--json={path}", "--pairs=1,2,...,64")
        said = iter(process.stdout.readline, "")
        self.assertTrue(any(line.startswith("AF_UNIX") for line in said), "it ended")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertGreaterEqual(len(rows_in(path)), 2)
        self.assertEqual(os.listdir(self.directory), ["rows.json"])

    @unittest.skipIf(os.geteuid() != 0, "BPF programs are root's")
    def test_nothing_of_a_killed_run_stays_in_the_kernel(self):
        before = bpf_programs(), sockmap_cgroups()
        process = self.start("ipc", "--sizes=8", "--kinds=tcp", "--ways=kernel,sockmap", "--seconds=30")
        try:
            wait_until(lambda: process.poll() is not None or bpf_programs() != before[0], "sockmap is attached", 30)
            if bpf_programs() == before[0]:
                self.skipTest(process.communicate()[0])
            process.kill()
            wait_until(lambda: (bpf_programs(), sockmap_cgroups()) == before, "the kernel has taken all back", 30)
        finally:
            process.kill()
            process.communicate()


main()
