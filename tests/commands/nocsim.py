#!/usr/bin/env python3
"""nocsim from the build directory: what its commands print and write, bad options, the same results for a seed."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

NOCSIM = pathlib.Path(sys.argv.pop(1)) / "nocsim" / "nocsim"
TRAFFICS = ["uniform", "transpose", "bitcomp", "bitrev", "shuffle", "tornado", "neighbor", "hotspot"]
BAD = (["bogus"], ["sweep", "--bogus=1"], ["sweep", "extra"], ["sweep", "--mesh=8"], ["sweep", "--mesh=0x3"],
       ["sweep", "--mesh=8x8x8"], ["sweep", "--vcs=0"], ["sweep", "--vcs=9"], ["sweep", "--vcs=two"], ["sweep", "--vcs"], ["sweep", "--vcs", "--seed=1"],
       ["sweep", "--profile=x"], ["sweep", "--traffic=x"], ["sweep", "--rates=0.1:0.5"], ["sweep", "--rates=0.5:0.1:0.1"],
       ["sweep", "--rates=0.1:0.5:0"], ["sweep", "--rates=-0.1"], ["sweep", "--rates=2"], ["sweep", "--rates=x"],
       ["sweep", "--seed=x"], ["sweep", "--latency=x"], ["sweep", "--order=zz"], ["sweep", "--arbitration=x"],
       ["sweep", "--traffic=bitrev", "--mesh=6x6"], ["sweep", "--traffic=transpose", "--mesh=4x2"],
       ["sweep", "--mesh=1x1"], ["sweep", "--hotspot=64", "--traffic=hotspot"], ["sweep", "--json="],
       ["sweep", "--packet=0"], ["zeroload", "--from=64"], ["zeroload", "--mesh=64x64"], ["request", "--to=0"],
       ["request", "--from=9,9"], ["bench", "--rate=2"], ["profiles", "--profile=x"])


def nocsim(*arguments, status=0):
    done = subprocess.run([NOCSIM, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, (arguments, done.returncode, done.stdout[-300:], done.stderr)
    return done


def rows(*arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "rows.json"
        nocsim("sweep", *arguments, f"--json={path}")
        return json.loads(path.read_text())


class Nocsim(unittest.TestCase):
    def test_bad_options_are_one_line_and_status_2(self):
        for arguments in BAD:
            with self.subTest(arguments):
                done = nocsim(*arguments, status=2)
                self.assertEqual(done.stdout, "")
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
                self.assertTrue(done.stderr.startswith("nocsim"), done.stderr)
        self.assertEqual(nocsim(status=2).stderr.count("\n"), 1)

    def test_a_file_that_cannot_be_written_is_status_1_before_anything_is_computed(self):
        done = nocsim("sweep", "--mesh=64x64", "--json=/nowhere/x.json", status=1)
        self.assertEqual((done.stdout, done.stderr.count("\n")), ("", 1))

    def test_help_names_every_option(self):
        self.assertIn("sweep", nocsim("--help").stdout)
        for command, options in {"sweep": ["--mesh", "--profile", "--vcs", "--depth", "--router-stages", "--packet",
                                           "--traffic", "--rates", "--seed", "--json", "--plot", "--latency"],
                                 "zeroload": ["--mesh", "--packet"], "request": ["--from", "--to", "--plot"],
                                 "bench": ["--rate"], "profiles": ["--profile"]}.items():
            text = nocsim(command, "--help").stdout
            for option in options:
                self.assertIn(option + "=", text)

    def test_a_sweep_has_a_row_for_each_rate(self):
        found = rows("--mesh=4x4", "--profile=booksim", "--vcs=2", "--depth=16", "--router-stages=3", "--packet=4",
                     "--traffic=uniform", "--rates=0.1:0.3:0.1", "--seed=5")
        self.assertEqual([row["rate"] for row in found], [0.1, 0.2, 0.3])
        zero_load = (1 + 2 * 1.25 * 16 / 15) * 4 + 3
        for row in found:
            self.assertAlmostEqual(row["accepted"], row["rate"], delta=0.01)
            self.assertGreater(row["latency_avg"], zero_load)
            self.assertGreater(row["latency_p99"], row["latency_avg"])
            self.assertTrue(row["converged"] and not row["saturated"])
            # What is accepted has gone over the links: mean hops times the rate, over 48 links.
            used = sum(link["use"] for link in row["links"] if link["port"] != "L")
            self.assertAlmostEqual(used / 16 / row["accepted"], 2 * 1.25 * 16 / 15, delta=0.05)
        self.assertLess(found[0]["latency_avg"], found[2]["latency_avg"])

    def test_the_same_seed_gives_the_same_results_and_another_one_others(self):
        arguments = ["--mesh=4x4", "--rates=0.4"]
        first = rows(*arguments, "--seed=7")
        self.assertEqual(first, rows("--seed", "7", *arguments))
        self.assertNotEqual(first, rows(*arguments, "--seed=8"))
        # On any machine: the only figure here that is compared with itself of another day.
        self.assertEqual((first[0]["packets"], first[0]["latency_p99"]), (40183, 44))

    def test_every_traffic_runs_and_is_drawn(self):
        with tempfile.TemporaryDirectory() as folder:
            for traffic in TRAFFICS:
                plot = pathlib.Path(folder) / f"{traffic}.svg"
                nocsim("sweep", "--mesh=4x4", f"--traffic={traffic}", "--rates=0.05,0.1", f"--plot={plot}")
                root = xml.etree.ElementTree.parse(plot).getroot()
                self.assertTrue(root.tag.endswith("svg"))
                links = [e for e in root.iter() if e.tag.endswith("line") and len(e)]
                self.assertEqual(len(links), 48)

    def test_latency_from_injection_leaves_the_source_queue_out(self):
        arguments = ["--mesh=4x4", "--rates=0.6", "--seed=1"]
        whole, network = rows(*arguments), rows(*arguments, "--latency=network")
        self.assertLess(network[0]["latency_avg"], whole[0]["latency_avg"] - 1)
        self.assertAlmostEqual(network[0]["accepted"], whole[0]["accepted"], delta=0.01)

    def test_a_saturated_rate_says_so(self):
        row = rows("--mesh=8x8", "--vcs=1", "--rates=0.5")[0]
        self.assertTrue(row["saturated"])
        self.assertLess(row["accepted"], 0.35)

    def test_zeroload_prints_every_pair(self):
        lines = [line.split() for line in nocsim("zeroload", "--mesh=8x8", "--router-stages=3", "--packet=4").stdout.splitlines()
                 if not line.startswith("#")]
        self.assertEqual(len(lines), 64 * 64)
        for source, target, routers, latency in (map(int, line) for line in lines):
            h = abs(source % 8 - target % 8) + abs(source // 8 - target // 8) + 1
            self.assertEqual((routers, latency), (h, h * 4 + 3))

    def test_a_request_is_followed_and_drawn(self):
        with tempfile.TemporaryDirectory() as folder:
            plot = pathlib.Path(folder) / "request.html"
            text = nocsim("request", "--from=0", "--to=3", "--request=1", "--reply=1", "--work=5", f"--plot={plot}").stdout
            # Two words over four routers, one to receive, five to compute; and back.
            self.assertIn("3 hops away: 17 cycles", text)
            self.assertIn("<svg", plot.read_text())
        nocsim("request", "--rate=0.2", "--profile=tilegx72")

    def test_profiles_say_where_each_constant_comes_from(self):
        text = nocsim("profiles").stdout
        for word in ("booksim", "tilegx36", "tilegx72", "link-delay", "turn-delay", "assumed"):
            self.assertIn(word, text)

    def test_the_benchmark_counts(self):
        self.assertIn("million flit-hops/s", nocsim("bench", "--rounds=1", "--cycles=2000").stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
