"""A client of one kind of server that checks all it gets, whoever dies meanwhile.

storm_client.py http PORT FOLDER | redis PORT | memcached PORT | pipeline

What a server says of a key or a file says itself whether it is right: nothing that arrives may be anything else, only
less. A line of input is answered with figures; at the end of the input it prints them once more. A round that does not
end within PATIENCE_SECONDS is a failure: somebody hangs.
"""
import hashlib
import itertools
import json
import os
import random
import select
import socket
import subprocess
import sys
import threading

PATIENCE_SECONDS = 25
figures = {"rounds": 0, "bytes": 0, "breaks": 0}
stopping = threading.Event()


class Break(Exception):
    """The other side has died, as far as one can see."""


def fail(what):
    print(f"FAILED: {what}", flush=True)
    os._exit(1)


def value_of(key, size):
    """Known from the key alone."""
    block = hashlib.sha256(key.encode()).hexdigest().encode()
    return (block * (size // len(block) + 1))[:size]


class Stream:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self.buffer = b""
        # While nobody listens at a port that connections get as well, the kernel may give one this very port, and it is
        # connected to itself (a simultaneous open).
        if self.socket.getsockname() == self.socket.getpeername():
            self.socket.close()
            raise Break("connected to itself")

    def send(self, data):
        self.socket.sendall(data)

    def more(self):
        data = self.socket.recv(65536)
        if not data:
            raise Break("end")
        figures["bytes"] += len(data)
        self.buffer += data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def take(self, count):
        while len(self.buffer) < count:
            self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def close(self):
        self.socket.close()


class Http:
    def __init__(self, port, folder):
        self.stream = Stream(port)
        self.files = {name: open(os.path.join(folder, name), "rb").read() for name in os.listdir(folder)}

    def round(self):
        name = random.choice(list(self.files))
        self.stream.send(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status = self.stream.line()
        length, closes = 0, False
        while header := self.stream.line():
            field, _, value = header.decode().partition(":")
            if field.lower() == "content-length":
                length = int(value)
            closes |= field.lower() == "connection" and value.strip().lower() == "close"
        if status.split()[1] in (b"502", b"503", b"504"):  # haproxy has lost its server
            raise Break(status)
        if status.split()[1] != b"200":
            fail(f"{name}: {status}")
        if self.stream.take(length) != self.files[name]:
            fail(f"{name}: other bytes than are in the file")
        if closes:
            raise Break("closed in order")


class Redis:
    def __init__(self, port):
        self.stream = Stream(port)

    def round(self):
        key = f"key:{random.randrange(500)}"
        value = value_of(key, 200 + 37 * random.randrange(1000))
        self.stream.send(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" %
                         (len(key), key.encode(), len(value), value, len(key), key.encode()))
        answer = self.stream.line()
        if answer.startswith(b"-LOADING"):
            raise Break(answer)
        if answer != b"+OK":
            fail(f"redis says {answer}")
        answer = self.stream.line()
        got = self.stream.take(int(answer[1:]) + 2)[:-2]  # another client may have written another length
        if got != value_of(key, len(got)):
            fail(f"redis gives another value of {key}")


class Memcached:
    def __init__(self, port):
        self.stream = Stream(port)

    def round(self):
        key = f"key:{random.randrange(500)}"
        value = value_of(key, 100 + random.randrange(30000))
        self.stream.send(b"set %s 0 0 %d\r\n%s\r\nget %s\r\n" % (key.encode(), len(value), value, key.encode()))
        answer = self.stream.line()
        if answer != b"STORED":
            fail(f"memcached says {answer}")
        answer = self.stream.line()
        if answer == b"END":
            return
        got = self.stream.take(int(answer.split()[3]) + 2)[:-2]
        if got != value_of(key, len(got)) or self.stream.line() != b"END":
            fail(f"memcached gives another value of {key}")


class Pipeline:
    """A shell's pipeline whose members somebody kills: what comes out is the beginning of what goes in."""
    counter = itertools.count()

    def round(self):
        size = 1_000_000
        data = value_of(f"{os.getpid()} {next(self.counter)}", size)
        process = subprocess.Popen(["sh", "-c", "cat | cat | cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        def write():
            try:
                process.stdin.write(data)
                process.stdin.close()
            except OSError:
                pass
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        watchdog = threading.Timer(PATIENCE_SECONDS, lambda: fail("a pipeline hangs"))
        watchdog.daemon = True
        watchdog.start()
        out = process.stdout.read()
        process.wait()
        writer.join()
        watchdog.cancel()
        process.stdout.close()
        figures["bytes"] += len(out)
        if out != data[:len(out)]:
            fail("a pipeline changes its bytes")
        if len(out) != size:
            raise Break("a member died")

    stream = None


def drive(make):
    server = None
    while not stopping.is_set():
        try:
            server = server or make()
            server.round()
            figures["rounds"] += 1
        except socket.timeout:
            fail(f"nothing comes for {PATIENCE_SECONDS} s")
        except (Break, OSError):
            figures["breaks"] += 1
            if server and server.stream:
                server.stream.close()
            server = None
            stopping.wait(0.005)  # or it would only connect in vain while nobody listens
    if server and server.stream:
        server.stream.close()


def main():
    kind, *arguments = sys.argv[1:]
    makers = {"http": lambda: Http(int(arguments[0]), arguments[1]), "redis": lambda: Redis(int(arguments[0])),
              "memcached": lambda: Memcached(int(arguments[0])), "pipeline": Pipeline}
    thread = threading.Thread(target=drive, args=(makers[kind],), daemon=True)
    thread.start()
    while os.read(0, 100):
        print(json.dumps(figures), flush=True)
    stopping.set()
    thread.join(PATIENCE_SECONDS + 5)
    if thread.is_alive():
        fail("hangs at the end")
    print(json.dumps(figures), flush=True)


main()
