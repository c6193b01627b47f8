#!/usr/bin/env python3
"""redis forks for one snapshot after the other under load, and afterwards every key is right."""
import re
import time

from rig import (HERE, Failure, accepts_connections, check, find_program, free_port, run,
                 wait_until)

SNAPSHOT_SECONDS = 5


class Redis:
    def __init__(self, rig):
        self._rig = rig
        self.port = free_port()
        self.server = rig.start(
            [find_program("redis-server"), "--port", self.port, "--bind", "127.0.0.1",
             "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", rig.directory])
        wait_until(lambda: accepts_connections(self.port), "redis answers")

    def command(self, *words):
        return self._rig.output([find_program("redis-cli"), "-p", self.port, *words], False)

    def snapshot(self):
        """Whether BGSAVE could start, which it cannot while one runs."""
        check(self.server.running(), f"redis has died: {self.server.log()[-2000:]}")
        answer = self.command("BGSAVE")
        if "already in progress" in answer:
            return False
        check("Background saving started" in answer, f"BGSAVE: {answer}")
        return True

    def wait_for_snapshot(self):
        wait_until(lambda: "rdb_bgsave_in_progress:0" in self.command("INFO", "persistence"),
                   "the snapshot ends", 20)
        info = self.command("INFO", "persistence")
        check("rdb_last_bgsave_status:ok" in info, f"the last snapshot failed: {info}")


def snapshots_disturb_nobody(rig):
    redis = Redis(rig)
    clients = [rig.script(HERE / "redis_client.py", redis.port, f"client{number}", preload=preload)
               for number, preload in enumerate([True, True, False])]
    for client in clients:
        line = client.line()
        check(line == "writing", line)
    snapshots = 0
    end = time.monotonic() + SNAPSHOT_SECONDS
    while time.monotonic() < end:
        if redis.snapshot():
            snapshots += 1
            rig.audit()
        for client in clients:
            check(client.running(), f"client {client.pid} ended: {client.log()}")
        time.sleep(0.02)
    redis.wait_for_snapshot()
    check(snapshots >= 5, f"only {snapshots} snapshots")
    read_back = [client.finish().split() for client in clients]
    print(f"{snapshots} snapshots; keys read back and writes: {read_back}")
    rig.check_accelerated(at_least=2 * 3)
    benchmark(rig, redis)
    redis.server.kill(15)
    check("crashed" not in redis.server.log(), f"redis crashed: {redis.server.log()[-3000:]}")
    rig.check_nothing_left()


def benchmark(rig, redis):
    """The usual load generator, with a snapshot running, finds nothing wrong either."""
    for clients, pipeline in ((1, 1), (32, 1), (16, 16)):
        redis.snapshot()
        before = 0 if rig.native else rig.accelerated()
        output = rig.output([find_program("redis-benchmark"), "-p", redis.port, "-c", clients,
                             "-P", pipeline, "-n", 10_000, "-d", 300, "-q",
                             "-t", "set,get,lpush,lrange_100,mset"])
        check(len(re.findall(r"requests per second", output)) >= 5 and "rror" not in output,
              f"redis-benchmark: {output[-1000:]}")
        rig.check_accelerated(at_least=clients, before=before)
    redis.wait_for_snapshot()


run(snapshots_disturb_nobody, seconds=75)
