#!/usr/bin/env python3
"""sluiced and sluice from the build directory: options, statuses, complaints, and ends."""
import json
import os
import shutil
import signal
import subprocess
import sys
import unittest

from commands import Commands, OtherVersion, main, wait_until

KERNELS = ("import os, socket, sys; os.mkfifo(sys.argv[1]); a, b = socket.socketpair(type=socket.SOCK_SEQPACKET);"
           "os.pipe2(os.O_DIRECT); d = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM);" )
LISTEN = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(flush=True); input()"
# Something about more listeners than any queue has places, and then a question.
MUCH_TO_SAY = """
import select, socket
listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(200)]
poll = select.epoll()
for s in listeners: poll.register(s, select.EPOLLIN)
poll.poll(0)
first = socket.create_connection(listeners[-1].getsockname())
for s in listeners[1:-1]: s.close()
second = socket.create_connection(listeners[0].getsockname())
assert listeners[0].accept() and listeners[-1].accept()
"""
REPEATED = """
import os, socket
ours, its = socket.socketpair()
if os.fork() == 0:
    s = socket.create_server(("127.0.0.1", 0))
    its.send(b"%d" % s.getsockname()[1])
    for i in range(20):
        c = s.accept()[0]
        c.sendall(b"x")
        c.close()
    os._exit(0)
port = int(ours.recv(9))
for i in range(20):
    c = socket.create_connection(("127.0.0.1", port))
    assert c.recv(2) == b"x"
    c.close()
os.wait()
"""
BAD_OPTIONS = {
    "sluice": ([], ["bogus"], ["run"], ["run", "--bogus", "true"], ["run", "--dir"],
               ["run", "--queues=x", "true"], ["run", "--protect=x", "true"], ["status", "--bogus"],
               ["status", "extra"], ["ss", "-x"], ["stop", "--json"]),
    "sluiced": (["--bogus"], ["--queues=x"], ["--poll=x"], ["--protect=x"], ["--cpu=x"],
                ["--cpu=-1"], ["--grants=x"], ["extra"]),
}
HELP = {
    ("sluice",): ["run", "status", "ss", "audit", "stop", "--version"],
    ("sluice", "run"): ["--dir", "--queues", "--poll", "--protect", "--require", "125", "126"],
    ("sluice", "status"): ["--dir", "--json"],
    ("sluice", "ss"): ["--dir", "--json", "--listening", "--all"],
    ("sluice", "stop"): ["--dir"],
    ("sluice", "audit"): ["--dir", "--json"],
    ("sluice", "bench", "requests"): ["--queues", "--clients", "--active", "--depth", "--rate", "--flooders", "--poll",
                                      "--seconds", "--rounds", "--json"],
    ("sluice", "bench", "limits"): ["--sizes", "--cpu", "--peer-cpu", "--seconds", "--json"],
    ("sluice", "bench", "ipc"): ["--kinds", "--sizes", "--measures", "--pairs", "--cores", "--ways", "--rounds", "--seconds",
                                 "--json", "--poll", "--protect"],
    ("sluice", "bench", "connect"): ["--kinds", "--acceptors", "--cores", "--workers", "--connections", "--ways", "--rounds",
                                     "--seconds", "--json"],
    ("sluice", "bench", "apps"): ["--apps", "--connections", "--ways", "--user", "--rounds", "--seconds", "--json"],
    ("sluice", "bench", "protect"): ["--parts", "--connections", "--user", "--rounds", "--seconds", "--json"],
    ("sluice", "bench", "all"): ["--report", "--quick", "--only"],
    ("sluice", "bench"): ["requests", "limits", "ipc", "connect", "apps", "protect", "all"],
    ("sluiced",): ["--dir", "--queues", "divided", "shared", "auto", "noc", "--poll", "adaptive", "busy", "--cpu",
                   "--protect", "none", "regions", "keys", "keys-strict", "--grants", "--foreground", "--linger", "--version"],
}


class Usage(Commands):
    def program(self, name):
        return getattr(self.build, name)

    def test_help_names_every_option(self):
        for (name, *command), words in HELP.items():
            status, out, err = self.call(self.program(name), *command, "--help")
            self.assertEqual((status, err), (0, ""))
            for word in words:
                self.assertIn(word, out, (name, command))

    def test_wrong_usage_is_one_line_and_status_2(self):
        for name, calls in BAD_OPTIONS.items():
            for arguments in calls:
                with self.subTest(name=name, arguments=arguments):
                    status, out, err = self.call(self.program(name), *arguments)
                    self.assertEqual((status, out), (2, ""))
                    self.one_line(err, f"{name}: ")

    def test_a_cpu_that_is_not_there_is_refused(self):
        cpu = os.sysconf("SC_NPROCESSORS_CONF")
        for more in ([], ["--foreground"]):
            status, _, err = self.call(self.build.sluiced, f"--dir={self.run_dir}", f"--cpu={cpu}",
                                       *more)
            self.assertEqual(status, 1)
            self.one_line(err, f"CPU {cpu}")

    def test_without_a_coordinator_the_others_say_so(self):
        for command in ("status", "ss", "stop"):
            status, out, err = self.sluice(command)
            self.assertEqual((status, out), (1, ""))
            self.one_line(err, "no coordinator", self.run_dir)


class Status(Commands):
    def test_the_status_is_that_of_the_command(self):
        self.assertEqual(self.sluice("run", "--", "sh", "-c", "exit 37")[0], 37)
        self.assertEqual(self.sluice("run", "sh", "-c", "exit 0")[0], 0)

    def test_a_signal_that_ends_the_command_is_passed_on(self):
        for number in (signal.SIGKILL, signal.SIGTERM):
            self.assertEqual(self.sluice("run", "--", "sh", "-c", f"kill -{number} $$")[0], -number)

    def test_a_command_that_cannot_run_is_127_or_126(self):
        for command, expected in (("/nonexistent", 127), ("/", 126), ("/etc/passwd", 126)):
            status, _, err = self.sluice("run", "--", command)
            self.assertEqual(status, expected)
            self.one_line(err, command)

    def test_options_after_the_command_are_the_command_s(self):
        status, out, _ = self.sluice("run", "echo", "--require", "--", "--dir")
        self.assertEqual((status, out), (0, "--require -- --dir\n"))


class RunDirectory(Commands):
    def daemon_refuses(self, *words):
        status, out, err = self.call(self.build.sluiced, f"--dir={self.run_dir}")
        self.assertEqual((status, out), (1, ""))
        self.one_line(err, *words)

    def is_refused(self, *words):
        self.runs_on_the_kernel(*words)
        self.daemon_refuses(*words)

    def test_a_file_is_refused(self):
        open(self.run_dir, "w").close()
        self.is_refused("not a directory")

    def test_a_link_is_refused(self):
        os.symlink(self.directory, self.run_dir)
        self.is_refused("not a directory")

    def test_one_that_others_may_write_to_is_refused(self):
        os.mkdir(self.run_dir)
        os.chmod(self.run_dir, 0o777)
        self.is_refused("written to by others")

    @unittest.skipIf(os.geteuid() != 0, "only root can give a directory away")
    def test_a_foreign_one_is_refused(self):
        os.mkdir(self.run_dir)
        os.chown(self.run_dir, 12345, 12345)
        self.is_refused("12345")

    def test_one_without_a_parent_is_refused(self):
        self.run_dir += "/deeper/still"
        self.is_refused("No such file")

    def test_a_long_path_is_refused(self):
        self.run_dir += "x" * 80
        self.is_refused("too long")

    def test_a_second_coordinator_is_refused(self):
        self.assertEqual(self.call(self.build.sluiced, f"--dir={self.run_dir}")[0], 0)
        self.daemon_refuses("another coordinator")
        self.assertEqual(self.sluice("stop")[0], 0)
        self.assertTrue(self.no_coordinator())

    def test_what_a_killed_coordinator_left_is_used_again(self):
        daemon = subprocess.Popen([self.build.sluiced, "--foreground", f"--dir={self.run_dir}"],
                                  stderr=subprocess.DEVNULL)
        wait_until(lambda: not self.no_coordinator(), "sluiced answers")
        daemon.kill()
        daemon.wait()
        self.assertTrue(os.path.exists(os.path.join(self.run_dir, "coordinator.sock")))
        self.assertTrue(self.no_coordinator())
        self.assertEqual(self.sluice("run", "--require", "--", "true"), (0, "", ""))

    def test_a_coordinator_of_another_version_is_not_used(self):
        os.mkdir(self.run_dir, 0o700)
        OtherVersion(self.run_dir)
        self.runs_on_the_kernel("another version")
        for command in ("status", "ss", "stop"):
            status, out, err = self.sluice(command)
            self.assertEqual((status, out), (1, ""))
            self.one_line(err, "another version")

    def test_the_shim_leaves_a_program_on_the_kernel_then(self):
        os.mkdir(self.run_dir, 0o700)
        OtherVersion(self.run_dir)
        connect = ("import socket; s = socket.create_server(('127.0.0.1', 0));"
                   "c = socket.create_connection(s.getsockname()); a = s.accept()[0];"
                   "a.send(b'x'); print(c.recv(1))")
        status, out, _ = self.call(sys.executable, "-c", connect, env={
            "LD_PRELOAD": self.build.library, "SLUICE_DIR": self.run_dir})
        self.assertEqual((status, out), (0, "b'x'\n"))


class Parts(Commands):
    """What is not there, in a copy of the build directory."""

    def copy(self, *paths, to="copy"):
        for path in paths:
            folder = os.path.join(self.directory, to, os.path.basename(os.path.dirname(path)))
            os.makedirs(folder, exist_ok=True)
            shutil.copy(path, folder)
        self.build = type(self.build)(os.path.join(self.directory, to))

    def test_a_missing_daemon_is_said(self):
        self.copy(self.build.sluice, self.build.library)
        self.runs_on_the_kernel("sluiced")

    def test_a_library_that_ld_so_cannot_be_told_of_is_said(self):
        self.copy(self.build.sluice, self.build.sluiced, self.build.library, to="a copy")
        self.runs_on_the_kernel("LD_PRELOAD cannot")


class Embedded(Commands):
    def listener(self):
        process = subprocess.Popen(
            [self.build.sluice, "run", f"--dir={self.run_dir}", "--require", "--", sys.executable,
             "-c", LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdout.readline()
        return process

    def test_the_coordinator_leaves_after_its_last_client(self):
        first, second = self.listener(), self.listener()
        first.communicate(b"\n")
        status, out, _ = self.sluice("ss", "--listening")
        self.assertEqual((status, out.count("LISTEN")), (0, 1), out)
        second.communicate(b"\n")
        wait_until(self.no_coordinator, "the coordinator leaves")

    def test_it_has_the_wanted_settings_and_a_note_says_when_not(self):
        self.assertEqual(self.sluice("run", "--queues=shared", "--poll=busy", "--", "true"),
                         (0, "", ""))
        self.assertIn("queues shared, poll busy, protect regions", self.sluice("status")[1])
        status, _, err = self.sluice("run", "--queues=divided", "--", "true")
        self.assertEqual(status, 0)
        self.one_line(err, "note", "--queues=shared")
        self.assertEqual(self.sluice("stop"), (0, "", ""))

    def test_requests_take_the_queues_that_were_asked_for(self):
        for queues in ("divided", "shared", "noc"):
            self.assertEqual(self.call(self.build.sluiced, f"--dir={self.run_dir}", f"--queues={queues}", "--grants=no")[0], 0)
            self.assertEqual(self.sluice("run", "--require", "--", sys.executable, "-c", REPEATED), (0, "", ""))
            self.assertIn(f"queues {queues}", self.sluice("status")[1])
            counts = json.loads(self.sluice("status", "--json")[1])
            self.assertEqual(counts["queues"], queues)
            requests = counts["requests_total"]
            self.assertGreaterEqual(requests.pop(queues), 20)
            self.assertEqual(sum(requests.values()), 0, f"not {queues}: {requests}")
            self.assertEqual(counts["accelerated_total"], 20, counts)
            self.assertEqual(self.sluice("stop"), (0, "", ""))

    def test_much_to_say_at_once_sends_no_connection_to_the_kernel(self):
        for queues in ("divided", "shared", "noc"):
            self.assertEqual(self.call(self.build.sluiced, f"--dir={self.run_dir}", f"--queues={queues}", "--grants=no")[0], 0)
            self.assertEqual(self.sluice("run", "--require", "--", sys.executable, "-c", MUCH_TO_SAY), (0, "", ""))
            counts = json.loads(self.sluice("status", "--json")[1])
            self.assertEqual(sum(counts["fallback_total"].values()), 0, f"{queues}: {counts}")
            self.assertEqual(counts["accelerated_total"], 2, counts)
            self.assertEqual(self.sluice("stop"), (0, "", ""))

    def test_a_coordinator_without_grants_is_asked_each_time(self):
        for grants, without_asking in (("no", 0), ("yes", 10)):
            self.assertEqual(self.call(self.build.sluiced, f"--dir={self.run_dir}", f"--grants={grants}")[0], 0)
            self.assertEqual(self.sluice("run", "--require", "--", sys.executable, "-c", REPEATED), (0, "", ""))
            counts = json.loads(self.sluice("status", "--json")[1])
            self.assertEqual(counts["accelerated_total"], 20, counts)
            self.assertGreaterEqual(counts["granted_total"], without_asking)
            self.assertLessEqual(counts["granted_total"], 2 * without_asking)
            self.assertEqual(self.sluice("stop"), (0, "", ""))
            wait_until(self.no_coordinator, "the coordinator leaves")

    def test_what_stays_with_the_kernel_is_counted(self):
        """Also what was made before the process was known to the coordinator."""
        process = subprocess.Popen(
            [self.build.sluice, "run", f"--dir={self.run_dir}", "--require", "--", sys.executable,
             "-c", KERNELS + LISTEN, os.path.join(self.directory, "fifo")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdout.readline()
        status, out, _ = self.sluice("status", "--json")
        counted = json.loads(out)["fallback_total"]
        self.assertEqual((status, counted["fifo"], counted["socketpair"], counted["type"]), (0, 1, 1, 2))
        process.communicate(b"\n")

    def test_the_shim_s_own_sockets_are_not_counted(self):
        """Such as the one that a forked child gets for a channel of its own."""
        fork = LISTEN.replace("print", "os.fork() or (s.close(), os._exit(0)); os.wait(); print").replace("socket,", "socket, os,")
        process = subprocess.Popen(
            [self.build.sluice, "run", f"--dir={self.run_dir}", "--require", "--", sys.executable, "-c", fork],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdout.readline()
        status, out, _ = self.sluice("status", "--json")
        self.assertEqual((status, json.loads(out)["fallback_total"]["socketpair"]), (0, 0))
        process.communicate(b"\n")

    def test_a_command_inside_means_the_same_coordinator(self):
        status, out, err = self.sluice("run", "--", self.build.sluice, "status")
        self.assertEqual((status, err), (0, ""))
        self.assertIn(self.run_dir, out)

    def test_other_preloaded_libraries_stay(self):
        status, out, err = self.sluice("run", "--", "sh", "-c", "echo $LD_PRELOAD",
                                       env={"LD_PRELOAD": "libm.so.6"})
        self.assertEqual((status, out), (0, f"{self.build.library}:libm.so.6\n"), err)


main()
