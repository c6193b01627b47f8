"""One who takes part in the passing of connections, told what to do line by line; answers each.

passer.py master PATH: listens, and passes what it accepts to who connects to PATH. Prints its port.
passer.py worker PATH: takes what a master passes.
passer.py client PORT: connects to a master.
"""
import array
import errno
import os
import socket
import sys


def pass_on(channel, connection):
    rights = array.array("i", [connection.fileno()])
    channel.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def take(channel):
    data, control, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(4))
    rights = array.array("i")
    for _, _, bytes_ in control:
        rights.frombytes(bytes_)
    return socket.socket(fileno=rights[0]) if rights else None


def figures():
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return f"{len(os.listdir('/proc/self/fd'))} {pages * 4096}"


class Master:
    def __init__(self, path):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(path)
        self.door.listen(8)
        print(self.listener.getsockname()[1], flush=True)

    def meet(self):
        self.channel = self.door.accept()[0]

    def accept(self):
        self.connection = self.listener.accept()[0]

    def send(self):
        pass_on(self.channel, self.connection)

    def try_to_send(self):
        try:
            self.send()
        except OSError as error:
            return errno.errorcode[error.errno]

    def drop(self):
        self.connection.close()

    def forget(self):
        self.channel.close()

    def serve(self, count):
        for _ in range(int(count)):
            self.accept()
            self.send()
            self.drop()
        return figures()


class Worker:
    def __init__(self, path):
        self.channel = socket.socket(socket.AF_UNIX)
        self.channel.connect(path)
        print("ready", flush=True)

    def take(self):
        self.connection = take(self.channel)

    def echo(self):
        data = b""
        try:
            data = self.connection.recv(100)
            if data:
                self.connection.sendall(data)
        except OSError as error:
            return type(error).__name__
        return data.decode() or "end"

    def drop(self):
        self.connection.close()

    def serve(self, count):
        for _ in range(int(count)):
            self.take()
            while data := self.connection.recv(100):
                self.connection.sendall(data)
            self.drop()
        return figures()


class Client:
    def __init__(self, port):
        self.port = int(port)
        print("ready", flush=True)

    def connect(self):
        self.connection = socket.create_connection(("127.0.0.1", self.port))

    def say(self, text):
        self.connection.sendall(text.encode())

    def hear(self):
        try:
            return self.connection.recv(100).decode() or "end"
        except OSError as error:
            return type(error).__name__

    def drop(self):
        self.connection.close()

    def use(self, count):
        for number in range(int(count)):
            self.connect()
            self.say(f"hello {number}")
            if self.hear() != f"hello {number}":
                return "something else"
            self.drop()
        return figures()


player = {"master": Master, "worker": Worker, "client": Client}[sys.argv[1]](sys.argv[2])
for line in sys.stdin:
    word, *arguments = line.split()
    print(getattr(player, word)(*arguments) or "done", flush=True)
