#!/usr/bin/env python3
"""A connection is sent away in a slot where another one was before, and its initiator looks before it is told: it finds
nothing there of the earlier one's bytes, and its own arrive elsewhere."""
import os
import signal

from echo import alive, check, run, wait_until

OLD, NEW = "old" * 100, "new"
SERVER = """
import select, socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen()
print(s.getsockname()[1], flush=True)
other = socket.create_server(("127.0.0.1", 0))  # it goes on to wait for connections
for order in sys.stdin:
    if order.startswith("serve"):
        c, _ = s.accept()
        c.sendall(order.split()[1].encode())
        print(c.recv(100).decode() or "end", flush=True)
        c.close()
    else:
        s.close()
        print("closed", flush=True)
        select.select([other, sys.stdin], [], [])
"""
CLIENT = """
import select, socket, sys
for order in sys.stdin:
    if order.startswith("read"):
        c = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        data = b""
        while len(data) < int(order.split()[1]): data += c.recv(1000)
        c.close()
        print(data.decode(), flush=True)
    elif order.startswith("connect"):
        c = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        c.sendall(b"hello")
        c.setblocking(False)
        print("connected", flush=True)
    elif order.startswith("look"):
        ready = bool(select.select([c], [], [], 0)[0])
        try:
            print(ready, c.recv(1000), flush=True)
        except BlockingIOError:
            print(ready, "nothing", flush=True)
    else:
        c.setblocking(True)
        print(c.recv(1000).decode(), flush=True)
"""


class Stoppable:
    """Stops just before it pushes to a ready queue, when told to."""

    def __init__(self, rig, name, script, port):
        self.file = os.path.join(rig.directory, f"{name}.stop")
        os.environ["SLUICE_STOP"] = f"E0.before,{self.file}"
        self.process = rig.start(["python3", "-c", script, port], talks=True)
        del os.environ["SLUICE_STOP"]
        self.ask, self.line = self.process.ask, self.process.line

    def stop_next(self):
        open(self.file, "w").close()

    def wait_stopped(self):
        def stopped():
            with open(f"/proc/{self.process.pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] == "T"
        wait_until(stopped, "it stops")

    def go_on(self):
        self.process.send(signal.SIGCONT)


def nothing_of_the_earlier_one(rig):
    if rig.native:
        return
    rig.build.library = os.path.join(rig.options.build, "tests", "faults", "libsluice-deaths.so")
    first = Stoppable(rig, "first", SERVER, "0")
    port = first.line().strip()
    client = Stoppable(rig, "client", CLIENT, port)
    for _ in range(3):  # the first slots are given back
        first.process.order(f"serve {OLD}")
        check(client.ask(f"read {len(OLD)}") == OLD, "an earlier connection")
        check(first.line() == "end", "its end")

    client.stop_next()
    client.process.order("connect")  # in the same slot
    client.wait_stopped()
    second = Stoppable(rig, "second", SERVER, port)
    second.line()
    second.process.order(f"serve {NEW}")
    check(first.ask("close") == "closed", "it closes")
    first.stop_next()
    client.go_on()
    check(client.line() == "connected", "it connects")
    first.wait_stopped()  # it has sent the connection away, and not told so
    found = client.ask("look")
    check(found == "False nothing", f"there is something to be read: {found[:80]}")
    first.go_on()
    check(client.ask("receive") == NEW, "the answer")
    check(second.line() == "hello", "what was sent goes along")
    check(rig.accelerated() == 4, "not accelerated")
    check(alive(first.process.pid), "the first server has ended")


run(nothing_of_the_earlier_one, seconds=40)
