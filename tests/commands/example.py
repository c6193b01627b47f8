#!/usr/bin/env python3
"""examples/nginx/run measures, leaves nothing, and leaves another nginx alone."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from commands import ROOT, Commands, main, wait_until

sys.path.insert(0, str(ROOT / "tests" / "apps"))
from rig import alive, command_line, descendants_of  # noqa: E402
from processes import accepts_connections, free_port  # noqa: E402
from servers import find_program  # noqa: E402

OTHER_NGINX = """
daemon off; worker_processes 2; pid {0}/other.pid; error_log {0}/other.log;
events {{}}
http {{ access_log off; client_body_temp_path {0}/b; proxy_temp_path {0}/p;
        fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;
        server {{ listen 127.0.0.1:{1}; return 204; }} }}
"""


@unittest.skipUnless(shutil.which("wrk"), "wrk is not installed")
class Example(Commands):
    def setUp(self):
        super().setUp()
        self.argv = [ROOT / "examples" / "nginx" / "run", "--no-prepare", "--seconds=1",
                     "--rounds=1", "--connections=1,4", f"--build={self.build.directory}"]
        self.temporary = os.path.join(tempfile.gettempdir(), "t")
        os.mkdir(self.temporary)
        os.chmod(self.temporary, 0o755)
        self.before = self.processes()

    def tearDown(self):
        self.assertEqual([command_line(pid) for pid in self.processes() - self.before], [])
        self.assertEqual(os.listdir(self.temporary), [])
        os.rmdir(self.temporary)

    def processes(self):
        """Of the test; orphans are its parent's."""
        return {pid for pid in descendants_of(os.getppid()) if alive(pid)}

    def start(self, *arguments):
        return subprocess.Popen([*self.argv, *arguments], start_new_session=True, text=True,
                                env={**os.environ, "TMPDIR": self.temporary},
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def runs(self, program):
        return any(program in command_line(pid) for pid in self.processes() - self.before)

    def start_other_nginx(self, port):
        path = os.path.join(self.directory, "other.conf")
        with open(path, "w") as conf:
            conf.write(OTHER_NGINX.format(self.directory, port))
        nginx = subprocess.Popen([find_program("nginx"), "-p", self.directory, "-c", path, "-e",
                                  os.path.join(self.directory, "other.log")])
        wait_until(lambda: accepts_connections(port), "the other nginx answers")
        return nginx

    def test_one_table_and_another_nginx_untouched(self):
        port = free_port()
        nginx = self.start_other_nginx(port)
        wait_until(lambda: len(descendants_of(nginx.pid)) == 2, "the other nginx has its workers")
        workers = descendants_of(nginx.pid)
        output = self.start().communicate()[0]
        for title in ("kernel", "Sluice, divided", "Sluice, shared"):
            for connections in (1, 4):
                self.assertRegex(output, rf"(?m)^{connections} +{title} +[\d,]+ +[\d.]+ +[\d.]+ ")
        self.assertNotIn("Problem", output)
        self.assertTrue(accepts_connections(port))
        self.assertEqual(descendants_of(nginx.pid), workers)
        nginx.terminate()
        nginx.wait()

    def test_nothing_is_left_after_an_interruption(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)  # under nohup it is ignored, and that is inherited
            for program in ("compare.py", "nginx: worker", "wrk"):
                with self.subTest(number=number, program=program):
                    example = self.start("--ways=divided")
                    wait_until(lambda: self.runs(program), f"{program} runs")
                    example.send_signal(number)
                    output = example.communicate(timeout=20)[0]
                    # By the signal itself, if it came before there was anything to clean up.
                    self.assertIn(example.returncode, (128 + number, -number), output)
                    self.assertNotIn("Traceback", output)
                    self.assertEqual(os.listdir(self.temporary), [])

    def test_a_bad_option_is_refused_before_anything_is_done(self):
        for option in ("--rounds=0", "--ways=none", "--app=x", "--bogus", "extra"):
            status, out, err = self.call(*self.argv, option)
            self.assertEqual((status, out), (1, ""))
            self.assertTrue(err.endswith(f"run: bad option: {option}\n"), err)


main()
