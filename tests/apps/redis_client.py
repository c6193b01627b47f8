"""Writes keys to a redis in pipelines until its input ends, then reads every one back.

    redis_client.py PORT NAME --connections=N

Prints "writing" once every connection has written something, and at the end the number of keys
read back and of writes.
"""
import argparse
import hashlib
import random
import select
import socket
import sys
import threading

PATIENCE_SECONDS = 20
KEYS = 2000
PIPELINE = 50
SIZES = [0, 5, 64, 64, 200, 1000, 5000]


def value(key, version):
    seed = hashlib.sha256(f"{key} {version}".encode()).digest()
    size = SIZES[seed[0] % len(SIZES)]
    return (seed * (size // len(seed) + 1))[:size]


def encode(*words):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word)
                                             for word in words)


class Connection:
    def __init__(self, port, name):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self._file = self._socket.makefile("rb", buffering=65536)
        self._random = random.Random(name)
        self._name = name
        self.versions = {}
        self.writes = 0

    def ask(self, requests):
        """Sends all of them, then reads all answers."""
        self._socket.sendall(b"".join(encode(*request) for request in requests))
        return [self._answer() for _ in requests]

    def write_some(self):
        requests, expected = [], []
        for _ in range(PIPELINE):
            key = f"{self._name}-{self._random.randrange(KEYS)}"
            before = self.versions.get(key)
            self.versions[key] = version = self.writes = self.writes + 1
            requests.append(("SET", key, value(key, version), "GET"))
            expected.append(None if before is None else value(key, before))
        if self.ask(requests) != expected:
            raise ValueError("a SET gives another old value than the one set before")

    def read_all(self):
        keys = list(self.versions)
        for begin in range(0, len(keys), PIPELINE):
            some = keys[begin:begin + PIPELINE]
            answers = self.ask([("GET", key) for key in some])
            for key, answer in zip(some, answers):
                if answer != value(key, self.versions[key]):
                    raise ValueError(f"{key} version {self.versions[key]}: {answer!r:.80}")
        return len(keys)

    def _answer(self):
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ValueError(f"end of file after {line!r}")
        kind, rest = line[:1], line[1:-2]
        if kind != b"$":
            raise ValueError(f"an answer of another kind: {line!r}")
        if rest == b"-1":
            return None
        data = self._file.read(int(rest) + 2)
        if len(data) != int(rest) + 2:
            raise ValueError("end of file inside a value")
        return data[:-2]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("name")
    parser.add_argument("--connections", type=int, default=3)
    options = parser.parse_args()
    connections = [None] * options.connections
    failures, keys_read = [], []
    stopping = threading.Event()

    def drive(number):
        try:
            connection = Connection(options.port, f"{options.name}-{number}")
            connection.write_some()
            connections[number] = connection
            while not stopping.is_set():
                connection.write_some()
            keys_read.append(connection.read_all())
        except (OSError, ValueError) as error:
            failures.append(f"connection {number}: {error!r}")

    threads = [threading.Thread(target=drive, args=(number,))
               for number in range(options.connections)]
    for thread in threads:
        thread.start()
    said = False
    while not failures and not (select.select([0], [], [], 0.1)[0] and not sys.stdin.buffer.read1()):
        if not said and all(connections):
            print("writing", flush=True)
            said = True
    stopping.set()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit(f"{failures}")
    print(sum(keys_read), sum(connection.writes for connection in connections), flush=True)


main()
