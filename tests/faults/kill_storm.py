#!/usr/bin/env python3
"""Members of a running mix are killed every few milliseconds: nginx that reloads behind haproxy, redis with snapshots,
memcached, echo servers, pipelines, and clients of all of them.

Everything that a survivor gets is checked. Nobody hangs, and in the end nothing of the dead is left: no process, no
connection, no descriptor and no memory, neither in the coordinator nor in those who have lived through all of it.
`--seconds=600` for ten minutes.
"""
import os
import signal
import time

from echo import EchoClient, EchoServer, descriptors_of, program
from shared_memory import domain_of, living_domains, mapped_pairs
from storm_members import Client, Failure, Member, StormNginx, alive, check, command_line, haproxy, memcached, redis, wait_until
from rig import anonymous_bytes, run

EVERY_MS = (1, 8)  # from one death to the next
RELOAD_SECONDS, LOOK_SECONDS = 1.0, 5.0
GROWTH_BYTES = 64 << 20
MOST_LEFT = 2  # regions: one pair
# What dies how often: clients are soon there again, servers are what all the others need.
WEIGHTS = {"client": 30, "worker": 12, "nginx worker": 4, "pipeline": 16, "snapshot": 6, "server": 1}


class Storm:
    def __init__(self, rig):
        self.rig = rig
        self.deaths = dict.fromkeys(WEIGHTS, 0)
        self.nginx = StormNginx(rig)
        self.haproxy = haproxy(rig, self.nginx.nginx.port)
        self.redis, self.memcached = redis(rig), memcached(rig)
        self.echo = [EchoServer(rig, "epoll", workers=4), EchoServer(rig, "blocking", workers=2)]
        rig.options.unix = True
        self.echo.append(EchoServer(rig, "epoll", workers=2))
        self.servers = [self.haproxy, self.redis, self.memcached]
        documents = self.nginx.nginx.documents
        self.survivors = [Client(rig, "http", self.haproxy.port, documents),
                          Client(rig, "http", self.haproxy.port, documents, preload=False),
                          Client(rig, "http", self.nginx.nginx.port, documents),
                          Client(rig, "redis", self.redis.port), Client(rig, "memcached", self.memcached.port),
                          Client(rig, "pipeline")]
        self.talkers = [EchoClient(rig, server.port, connections=2, messages=9, peer_may_die=True, pause_us=500)
                        for server in self.echo]
        self.clients = [Member(rig, [program(rig, "echo_client"), server.port, "--connections=2", f"--messages={messages}",
                                     "--peer-may-die"])
                        for server in self.echo for messages in (0, 3, 20)]
        self.before = {}

    # ---- killing

    def candidates(self, kind):
        if kind == "client":
            return [self.rig.random.choice(self.clients).popen.pid]
        if kind == "worker":
            return self.rig.random.choice(self.echo).pids()
        if kind == "nginx worker":
            return self.nginx.pids()[1:] or self.nginx.pids()
        if kind == "pipeline":
            return [pid for pid in Member.pids(self._as_member(self.survivors[5]))[1:]]
        if kind == "snapshot":
            return self.redis.pids()[1:]
        return [self.rig.random.choice([*(s.popen.pid for s in self.servers), *self.nginx.pids()[:1]])]

    @staticmethod
    def _as_member(client):
        member = Member.__new__(Member)
        member.popen = client.process._popen
        return member

    def kill_one(self):
        kind = self.rig.random.choices(list(WEIGHTS), WEIGHTS.values())[0]
        pids = self.candidates(kind)
        if not pids:
            return
        try:
            os.kill(self.rig.random.choice(pids), signal.SIGKILL)
            self.deaths[kind] += 1
        except ProcessLookupError:
            pass

    def look_after_all(self):
        for member in (*self.servers, *self.clients, self.nginx):
            member.look_after()
        check(self.rig.coordinator.running(), f"sluiced has died: {self.rig.coordinator.log()[-2000:]}")

    def run(self, seconds):
        now = time.monotonic()
        end, reload, look = now + seconds, now, now + LOOK_SECONDS
        while (now := time.monotonic()) < end:
            self.kill_one()
            self.look_after_all()
            if now > reload:
                self.nginx.reload()
                reload = now + RELOAD_SECONDS
            if now > look:
                self.look()
                look = now + LOOK_SECONDS
            time.sleep(self.rig.random.uniform(*EVERY_MS) / 1000)  # that is the storm, no wait for anything

    def look(self):
        for client in self.survivors:
            client.figures()
        for talker in self.talkers:
            talker.figures()
        self.rig.audit()

    # ---- afterwards

    def check_progress(self):
        """All are there again, or will be: a server may find its port taken at first. So all go on."""
        before = [client.figures()["rounds"] for client in self.survivors]

        def all_go_on():
            self.look_after_all()
            return all(client.figures()["rounds"] > old for client, old in zip(self.survivors, before))
        wait_until(all_go_on, "every survivor goes on", 60)

    def survivors_pids(self):
        pids = [client.pid for client in self.survivors] + [talker.pid for talker in self.talkers]
        return [pid for pid in pids if alive(pid)]

    def long_lived(self):
        """Those, and the servers as they are now, whose peers have died as well."""
        return [*self.survivors_pids(), *(server.popen.pid for server in self.servers), *self.nginx.pids()]

    def measure(self):
        return {pid: (len(descriptors_of(pid)), anonymous_bytes(pid)) for pid in self.survivors_pids()}

    def check_growth(self, before):
        for pid, (descriptors, memory) in self.measure().items():
            check(descriptors <= before[pid][0] + 60, f"{pid} has {descriptors} descriptors, {before[pid][0]} before: "
                                                      f"{descriptors_of(pid)}")
            check(memory <= before[pid][1] + GROWTH_BYTES, f"{pid} has {memory} bytes, {before[pid][1]} before")

    def check_memory_of_the_dead(self):
        """Every pair's region that somebody maps is of two who live."""
        def left():
            living = living_domains(self.rig.coordinator.pid)
            dead = {pid: [ends for ends in mapped_pairs(pid) if not all(domain in living for domain in ends)]
                    for pid in self.long_lived()}
            return [(command_line(pid), domain_of(pid), ends) for pid, ends in dead.items() if len(ends) > MOST_LEFT]
        if not self.rig.native:
            try:
                wait_until(lambda: not left(), "", 20)
            except Failure:
                raise Failure(f"regions of the dead are mapped: {left()}") from None

    def end(self):
        for member in (*self.clients, self.haproxy, self.redis, self.memcached):
            if member is self.haproxy:
                figures = [client.figures(last=True) for client in self.survivors]
                talkers = [talker.finish() for talker in self.talkers]
            member.end()
        self.nginx.end()
        for server in self.echo:
            server.process.kill()
        return figures, talkers


def storm(rig):
    storm = Storm(rig)
    storm.run(3)  # everybody has met everybody
    storm.check_progress()
    before = storm.measure()
    memory = anonymous_bytes(rig.coordinator.pid)
    storm.run(rig.options.seconds)
    print(f"{sum(storm.deaths.values())} deaths in {rig.options.seconds} s: {storm.deaths}", flush=True)
    storm.check_progress()
    storm.check_growth(before)
    storm.check_memory_of_the_dead()
    grown = anonymous_bytes(rig.coordinator.pid) - memory
    check(grown < GROWTH_BYTES, f"sluiced has grown by {grown} bytes")
    if not rig.native:
        status = rig.status()
        print(f"accelerated {status['accelerated_total']}, on the kernel {status['fallback_total']}, "
              f"resets by peers {status['resets_total']}, pipes {status['pipes_total']}")
        check(status["resets_total"] == 0, "somebody broke an invariant")
        check(status["accelerated_total"] > sum(storm.deaths.values()), "not much was accelerated")
    figures, talkers = storm.end()
    for client, numbers in zip(storm.survivors, figures):
        print(f"{client.name}: {numbers}")
    print(f"echo: {talkers}")
    check(sum(storm.deaths.values()) > rig.options.seconds, "few deaths")
    rig.check_nothing_left(30)
    left = os.listdir(rig.run_dir)
    check(len(left) <= 3, f"in the run directory: {left}")


def options(parser):
    parser.add_argument("--seconds", type=int, default=30)


run(storm, seconds=1500, options=options)
