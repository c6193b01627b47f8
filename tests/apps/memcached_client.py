"""Stores values in a memcached and compares what comes back, until its input ends.

    memcached_client.py PORT NAME --connections=N

Every value is made from its key and version, so that a byte of another value, or of another
client's, is noticed. Nobody else uses the keys of NAME. Prints the number of values compared.
"""
import argparse
import hashlib
import random
import select
import socket
import sys
import threading

PATIENCE_SECONDS = 15
KEYS = 40
SIZES = [0, 1, 63, 1000, 4096, 16_384, 70_000, 300_000]


def value(key, version):
    seed = hashlib.sha256(f"{key} {version}".encode()).digest()
    size = SIZES[int.from_bytes(seed[:4], "big") % len(SIZES)]
    return (seed * (size // len(seed) + 1))[:size]


class Connection:
    """One connection's keys: their versions are known here and nowhere else."""

    def __init__(self, port, name):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._random = random.Random(name)
        self._versions = {f"{name}-{number}": 0 for number in range(KEYS)}
        for key in self._versions:
            self._set(key)

    def turn(self):
        """One request of some kind; how many values it compared."""
        keys = self._random.sample(list(self._versions), 5)
        kind = self._random.randrange(4)
        if kind == 0:
            self._set(keys[0])
            return 0
        if kind == 1:  # many requests in one write, most without an answer
            batch = b"".join(self._set_request(key, " noreply") for key in keys)
            self._socket.sendall(batch + self._get_request(keys))
            return self._compare(keys)
        keys = keys[:1] if kind == 2 else keys
        self._socket.sendall(self._get_request(keys))
        return self._compare(keys)

    def _set_request(self, key, suffix=""):
        self._versions[key] += 1
        data = value(key, self._versions[key])
        return f"set {key} 0 0 {len(data)}{suffix}\r\n".encode() + data + b"\r\n"

    def _set(self, key):
        self._socket.sendall(self._set_request(key))
        answer = self._line()
        if answer != b"STORED":
            raise ValueError(f"{key} is not stored: {answer!r}")

    @staticmethod
    def _get_request(keys):
        return f"get {' '.join(keys)}\r\n".encode()

    def _compare(self, keys):
        for key in keys:
            head = self._line()
            expected = value(key, self._versions[key])
            if head != f"VALUE {key} 0 {len(expected)}".encode():
                raise ValueError(f"{key} version {self._versions[key]} of {len(expected)} bytes: "
                                 f"{head[:80]!r}")
            if self._exactly(len(expected) + 2) != expected + b"\r\n":
                raise ValueError(f"{key} version {self._versions[key]} has wrong contents")
        if (end := self._line()) != b"END":
            raise ValueError(f"no end: {end[:80]!r}")
        return len(keys)

    def _fill(self):
        data = self._socket.recv(65536)
        if not data:
            raise ValueError("end of file")
        self._buffer += data

    def _line(self):
        while b"\r\n" not in self._buffer:
            self._fill()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _exactly(self, count):
        while len(self._buffer) < count:
            self._fill()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("name")
    parser.add_argument("--connections", type=int, default=4)
    options = parser.parse_args()
    compared = [0] * options.connections
    failures = []
    stopping = threading.Event()

    def drive(number):
        try:
            connection = Connection(options.port, f"{options.name}-{number}")
            while not stopping.is_set():
                compared[number] += connection.turn()
        except (OSError, ValueError) as error:
            failures.append(f"connection {number}: {error!r}")

    threads = [threading.Thread(target=drive, args=(number,))
               for number in range(options.connections)]
    for thread in threads:
        thread.start()
    while not failures and not (select.select([0], [], [], 0.1)[0] and not sys.stdin.buffer.read1()):
        pass
    stopping.set()
    for thread in threads:
        thread.join()
    print(sum(compared), flush=True)
    if failures or 0 in compared:
        sys.exit(f"{failures} {compared}")


main()
