"""Asks a server for files until its input ends, and compares every byte of what it gets.

    http_client.py PORT DIRECTORY --paths /a /b --keepalive=N --close=N [--count=N]

One thread per connection. A request on a kept connection that the server closes before the first
byte of an answer is sent again, once, on a new connection (RFC 9112, 9.3.1); anything else that
goes wrong is a failure. Prints figures as JSON when asked (a line of input) and at the end.
"""
import argparse
import json
import os
import select
import socket
import sys
import threading
import time

PATIENCE_SECONDS = 15


def difference(got, wanted):
    """Where the first wrong byte is, and what stands there."""
    at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
    return f"from {at} on {got[at:at + 60]!r} for {wanted[at:at + 60]!r}"


class Unanswered(Exception):
    """The connection ended before the first byte of an answer."""


class Connection:
    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self._buffer = b""

    def close(self):
        self._socket.close()

    def get(self, path, keep):
        """(status, body); OSError or ValueError for an answer that breaks off."""
        header = "keep-alive" if keep else "close"
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {header}\r\n\r\n"
        try:
            self._socket.sendall(request.encode())
            self._fill()
        except (ConnectionResetError, BrokenPipeError) as error:
            raise Unanswered(repr(error)) from None
        if not self._buffer:
            raise Unanswered("end of file")
        head, rest = self._head()
        length = int(head["content-length"])
        body = bytearray(rest[:length])
        if len(rest) > length:
            raise ValueError(f"{len(rest) - length} bytes more than the answer has")
        view = memoryview(bytearray(length - len(body)))
        while view:
            count = self._socket.recv_into(view)
            if count == 0:
                raise ValueError(f"end of file with {len(view)} of {length} bytes to come")
            body += view[:count]
            view = view[count:]
        self._buffer = b""
        if not keep and self._socket.recv(1) != b"":
            raise ValueError("data after the end of the answer")
        return head["status"], bytes(body), head.get("connection") == "keep-alive"

    def _fill(self):
        data = self._socket.recv(65536)
        self._buffer += data
        return bool(data)

    def _head(self):
        while b"\r\n\r\n" not in self._buffer:
            if not self._fill():
                raise ValueError(f"end of file inside the header: {self._buffer!r}")
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = dict((name.lower(), value.strip().lower())
                      for name, value in (line.split(":", 1) for line in lines))
        return {**fields, "status": int(first.split()[1])}, rest


class Load:
    def __init__(self, options):
        self.options = options
        self.files = {path: open(os.path.join(options.directory, path.split("/")[-1]), "rb").read()
                      for path in options.paths}
        self.lock = threading.Lock()
        self.figures = {"requests": 0, "connections": 0, "again": 0, "failures": []}
        self.stopping = threading.Event()

    def count(self, name):
        with self.lock:
            self.figures[name] += 1

    def fail(self, what):
        with self.lock:
            self.figures["failures"].append(f"{time.time():.3f} {what}")

    def drive(self, keep, turn):
        connection = None
        left = self.options.count or 10 ** 9
        while not self.stopping.is_set() and left:
            left -= 1
            turn += 1
            path = self.options.paths[turn % len(self.options.paths)]
            try:
                connection = self.request(connection, path, keep)
            except (OSError, ValueError, Unanswered) as error:
                self.fail(f"{'kept' if keep else 'fresh'} {path}: {error!r}")
                connection = None
                time.sleep(0.05)
        if connection:
            connection.close()

    def request(self, connection, path, keep):
        """Returns the connection if it is kept."""
        fresh = connection is None
        if fresh:
            connection = Connection(self.options.port)
            self.count("connections")
        try:
            status, body, kept = connection.get(path, keep)
        except Unanswered:
            connection.close()
            if fresh:
                raise
            self.count("again")
            return self.request(None, path, keep)
        if status != 200:
            raise ValueError(f"status {status}")
        if body != self.files[path]:
            raise ValueError(f"wrong contents, {len(body)} bytes, {difference(body, self.files[path])}")
        self.count("requests")
        if keep and kept:
            return connection
        connection.close()
        return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("directory")
    parser.add_argument("--paths", nargs="+", required=True)
    parser.add_argument("--keepalive", type=int, default=0)
    parser.add_argument("--close", type=int, default=0)
    parser.add_argument("--count", type=int, default=0, help="requests per connection's thread")
    load = Load(parser.parse_args())
    threads = [threading.Thread(target=load.drive, args=(keep, turn), daemon=True)
               for keep, number in ((True, load.options.keepalive), (False, load.options.close))
               for turn in range(number)]
    for thread in threads:
        thread.start()
    while not load.stopping.is_set():
        if select.select([0], [], [], 0.05)[0]:
            if not os.read(0, 100):
                load.stopping.set()
            else:
                with load.lock:
                    print(json.dumps(load.figures), flush=True)
        elif load.options.count and not any(thread.is_alive() for thread in threads):
            break
    for thread in threads:
        thread.join(PATIENCE_SECONDS + 5)
        if thread.is_alive():
            load.fail("a thread hangs")
    print(json.dumps(load.figures), flush=True)


main()
