#!/usr/bin/env python3
"""sluiced --queues=auto: a ring for each while there are few, and the silent share when there are many."""
import json
import subprocess
import sys
import time

from commands import Commands, main, wait_until

MANY, FEW = 140, 20
# So many processes that listen: each registers. Lines of input end some of them, or make one connect so often.
CROWD = """\
import os, socket, sys
first = None
ends = []
for i in range(int(sys.argv[1])):
    ours, its = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        for end in ends: end.close()
        s = socket.create_server(("127.0.0.1", 0))
        its.send(b"%d\\n" % s.getsockname()[1])
        while its.recv(1):
            c = s.accept()[0]
            c.close()
        os._exit(0)
    its.close()
    ends.append(ours)
    first = first or int(ours.recv(100))
    if len(ends) > 1: ours.recv(100)
print("ready", flush=True)
for line in sys.stdin:
    word, number = line.split()
    if word == "end":
        for end in ends[-int(number):]: end.close()
        for _ in range(int(number)): os.wait()
    else:
        for _ in range(int(number)):
            ends[0].send(b"!")
            with socket.create_connection(("127.0.0.1", first)) as c:
                c.recv(1)  # until it is accepted: more than a backlog would go to the kernel
    print("done", flush=True)
"""


class Auto(Commands):
    def setUp(self):
        super().setUp()
        self.processes = []

    def tearDown(self):
        for process in self.processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream:
                    stream.close()

    def start(self, *argv, **more):
        self.processes.append(subprocess.Popen([str(word) for word in argv], **more))
        return self.processes[-1]

    def crowd(self, number):
        process = self.start(self.build.sluice, "run", f"--dir={self.run_dir}", "--require", "--", sys.executable,
                             "-c", CROWD, number, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def tell(self, process, line):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "done\n")

    def status(self):
        code, out, err = self.sluice("status", "--json")
        self.assertEqual((code, err), (0, ""))
        return json.loads(out)

    def test_many_silent_clients_share_and_few_do_not(self):
        # Each connect is a request then.
        self.start(self.build.sluiced, f"--dir={self.run_dir}", "--queues=auto", "--grants=no", "--foreground",
                   stderr=subprocess.DEVNULL)
        wait_until(lambda: not self.no_coordinator(), "the coordinator answers")
        crowd = self.crowd(FEW)
        few = self.status()
        self.assertEqual(few["queues"], "auto")
        self.assertEqual(few["queues_now"]["shared"], 0, few["queues_why"])
        self.assertEqual(few["requests_total"]["shared"], 0)
        self.tell(crowd, "connect 100")  # more than a ring has entries
        more = self.crowd(MANY)
        many = self.status()
        self.assertEqual(sum(many["queues_now"].values()), many["clients"])
        self.assertGreater(many["queues_now"]["shared"], 0, many["queues_why"])
        self.assertGreater(many["requests_total"]["shared"], 0)
        time.sleep(0.3)  # silent for long enough
        self.tell(crowd, "connect 200")  # whichever queue they are at
        self.assertIn("queues, now", self.sluice("status")[1])
        self.tell(more, f"end {MANY}")
        self.tell(crowd, "connect 1")

        def all_divided():
            self.tell(crowd, "connect 1")
            return self.status()["queues_now"]["shared"] == 0
        wait_until(all_divided, "each of the few has a ring again")
        before = self.status()["requests_total"]
        self.tell(crowd, "connect 3")
        after = self.status()["requests_total"]
        self.assertGreaterEqual(after["divided"], before["divided"])
        self.assertEqual(after["shared"], before["shared"])
        self.assertGreaterEqual(after["divided"], before["divided"] + 3)
        end = self.status()
        self.assertGreaterEqual(end["accelerated_total"], 304, end)
        self.assertEqual(end["clients"], FEW + 1)  # and who connects
        wait_until(lambda: self.is_asleep(end["pid"]), "the coordinator sleeps when nothing is to do")

    @staticmethod
    def is_asleep(pid):
        def ticks():
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])
        before = ticks()
        time.sleep(0.3)
        return ticks() - before <= 3

    def test_a_client_that_talks_gets_a_ring_of_its_own(self):
        code, out, err = self.call(self.build.sluice, "bench", "requests", "--json=-", "--seconds=0.6", "--rounds=1",
                                   "--queues=auto", f"--clients={MANY}", "--active=1", "--depth=8")
        self.assertEqual((code, err), (0, ""))
        row = json.loads(out)[0]
        self.assertGreater(row["requests_per_s"], 0)
        self.assertLess(row["shared_part"], 0.8)

    def test_silent_clients_go_on_sharing(self):
        code, out, err = self.call(self.build.sluice, "bench", "requests", "--json=-", "--seconds=0.6", "--rounds=1",
                                   "--queues=auto", f"--clients={MANY}", "--rate=500")
        self.assertEqual((code, err), (0, ""))
        self.assertGreater(json.loads(out)[-1]["shared_part"], 0.9)

    def test_of_many_that_talk_most_share(self):
        code, out, err = self.call(self.build.sluice, "bench", "requests", "--json=-", "--seconds=0.6", "--rounds=1",
                                   "--queues=auto", f"--clients={MANY}", "--by-turns")
        self.assertEqual((code, err), (0, ""))
        row = json.loads(out)[0]
        self.assertTrue(row["by_turns"])
        self.assertGreater(row["requests_per_s"], 0)
        self.assertGreater(row["shared_part"], 0.5)  # at most 32 of them have rings of their own


main()
