#!/usr/bin/env python3
"""A policy file, end to end: rules and limits hold for two users, also for a client that goes around the shim, over
cached grants, and after the file has changed."""
import errno
import os
import shutil
import signal
import struct
import sys
import time

from echo import check, run, wait_until
from raw_client import PING, SLOT_BYTES, SLOTS_AT, SYNC, RawClient, for_others

ALICE, BOB = 5, 65534  # games and nobody: both are on every Debian
PROGRAM = os.path.realpath("/usr/bin/python3")  # ours may be where other users cannot reach it

SERVER = """
import os, socket, sys, threading
where = sys.argv[1]
if where.isdigit():
    s = socket.create_server(("127.0.0.1", int(where)))
else:
    s = socket.socket(socket.AF_UNIX)
    s.bind(where.replace("@", "\\0"))
    if where[0] == "/": os.chmod(where, 0o777)
    try:
        s.listen()
    except OSError as error:
        print(error.errno, flush=True)
        sys.exit()
print(s.getsockname()[1] if where.isdigit() else "ready", flush=True)
def serve(c):
    while data := c.recv(100): c.sendall(data)
    c.close()
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""
# Orders: "open N" opens and uses so many connections more and says how each went, "close" closes them all.
CLIENT = """
import errno, socket, sys
where, held = sys.argv[1], []
def connect():
    try:
        if where.isdigit(): c = socket.create_connection(("127.0.0.1", int(where)))
        else:
            c = socket.socket(socket.AF_UNIX)
            c.connect(where.replace("@", "\\0"))
        c.sendall(b"x")
        held.append(c)
        return "ok" if c.recv(1) == b"x" else "end"
    except OSError as error:
        return errno.errorcode[error.errno]
for line in sys.stdin:
    if line.startswith("open"): print(*[connect() for _ in range(int(line.split()[1]))], flush=True)
    else:
        for c in held: c.close()
        held.clear()
        print("closed", flush=True)
"""
LISTENER = """
import errno, socket, sys
s = socket.socket()
s.bind(("127.0.0.1", 0))
try:
    s.listen()
except OSError as error:
    print(errno.errorcode[error.errno], flush=True)
"""


# One of several at a port: says which; accepts from the first line of input on, and ends with the second.
SHARES_PORT = """
import socket, sys, threading
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen()
print(s.getsockname()[1], flush=True)
def serve():
    while True:
        s.accept()[0].send(b"served")
sys.stdin.readline()
s.settimeout(None)
threading.Thread(target=serve, daemon=True).start()
print("accepts", flush=True)
sys.stdin.readline()
"""
WAITS = """
import errno, socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.send(b"hello")
print("connected", flush=True)
try:
    print(s.recv(100).decode(), flush=True)
except OSError as error:
    print(errno.errorcode[error.errno], flush=True)
"""


class Ruled:
    """A coordinator with a policy, and processes of two users that may read the library."""

    def __init__(self, rig):
        self.rig = rig
        self.library = shutil.copy(rig.build.library, rig.directory)
        self.policy = os.path.join(rig.directory, "policy.toml")
        self.processes = []
        self.names = os.path.join(rig.directory, "names")  # where both users may bind
        os.mkdir(self.names)
        os.chmod(self.names, 0o777)

    def restart(self, text):
        for process in self.processes:
            process.kill()
        self.processes = []
        self.rig.coordinator.send(signal.SIGTERM)
        wait_until(lambda: not self.rig.coordinator.running(), "sluiced ends")
        self.write(text)
        self.rig.start_coordinator(f"--policy={self.policy}")

    def write(self, text):
        with open(self.policy, "w") as file:
            file.write(text)

    def reload(self, text, says):
        said = self.rig.coordinator.log().count(says)
        self.write(text)
        self.rig.coordinator.send(signal.SIGHUP)
        wait_until(lambda: self.rig.coordinator.log().count(says) > said, f"sluiced says {says!r}")

    def start(self, uid, argv, netns=None):
        inside = ["nsenter", f"--net=/proc/{netns}/ns/net"] if netns else []
        process = self.rig.start([*inside, "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "env",
                                  f"LD_PRELOAD={self.library}", f"SLUICE_DIR={self.rig.run_dir}", *argv],
                                 preload=False, talks=True)
        self.processes.append(process)
        return process

    def server(self, uid, where="0", netns=None):
        process = self.start(uid, [PROGRAM, "-c", SERVER, str(where)], netns)
        return process, process.line().strip()

    def client(self, uid, where, netns=None):
        return Client(self, uid, where, netns)

    def status(self):
        return self.rig.status()

    def refused(self):
        """By the lines of rules and limits that have refused something."""
        policy = self.status()["policy"]
        found = {rule["line"]: rule["refused"] for rule in policy["rules"]}
        found |= {limit["line"]: {k: n for k, n in limit["refused"].items() if n} for limit in policy["limits"]}
        return {line: n for line, n in found.items() if n}


class Client:
    def __init__(self, ruled, uid, where, netns=None):
        self.ruled = ruled
        self.process = ruled.start(uid, [PROGRAM, "-c", CLIENT, str(where)], netns)

    def open(self, count=1):
        """How many connections went how: {"ok": 1}; and how many of them were accelerated."""
        before = self.ruled.rig.accelerated()
        words = self.process.ask(f"open {count}").split()
        return {word: words.count(word) for word in words}, self.ruled.rig.accelerated() - before

    def close(self):
        check(self.process.ask("close") == "closed", "it does not close")


def same(what, got, expected):
    check(got == expected, f"{what}: {got} instead of {expected}")


# ---- files ----------------------------------------------------------------------------------


def wrong_files_do_not_start(rig, ruled):
    directory = os.path.join(rig.directory, "wrong")
    for text, place in (("[[rule]]\naction = \"drop\"\n", ":2: action must be"), ("[[rule]]\n", ":1: a rule without action"),
                        ("x =\n", ":1: "), ("[[limit]]\nclients = 1\n\nburst = 3\n", ":4: burst means nothing")):
        ruled.write(text)
        for options in ([f"--dir={directory}", "--foreground", f"--policy={ruled.policy}"], [f"--check-policy={ruled.policy}"]):
            process = rig.start([rig.build.sluiced, *options], preload=False)
            wait_until(lambda: not process.running(), "sluiced ends")
            check(process.status() == 1, f"its status is {process.status()}")
            check(ruled.policy + place in process.log(), f"it says {process.log()!r}, not {place!r}")
    process = rig.start([rig.build.sluiced, f"--dir={directory}", "--foreground", "--policy=/nonexistent"], preload=False)
    wait_until(lambda: not process.running(), "sluiced ends")
    check(process.status() == 1 and "/nonexistent: No such file" in process.log(), f"it says {process.log()!r}")
    ruled.write("[[rule]]\naction = \"kernel\"\n[[limit]]\nclients = 4\n")
    said = rig.output([rig.build.sluiced, f"--check-policy={ruled.policy}"], preload=False)
    same("--check-policy", said.strip(), f"{ruled.policy}: 1 rules, 1 limits")


# ---- rules ----------------------------------------------------------------------------------


def rules_hold_by_user_and_port(rig, ruled):
    ruled.restart("")
    _, port = ruled.server(ALICE)
    _, other = ruled.server(ALICE)
    _, third = ruled.server(ALICE)
    same("without rules", ruled.client(BOB, port).open(), ({"ok": 1}, 1))
    rules = (f'[[rule]]\naction = "deny"\noperation = "connect"\nuid = "nobody"\nport = {port}\n'
             f'[[rule]]\naction = "kernel"\nuid = "nobody"\nport = [{other}]\n')
    ruled.reload(rules, "read again")
    alice, denied, kernel, free = (ruled.client(uid, p) for uid, p in ((ALICE, port), (BOB, port), (BOB, other), (BOB, third)))
    same("denied", denied.open(3), ({"ECONNREFUSED": 3}, 0))
    same("over the kernel", kernel.open(3), ({"ok": 3}, 0))
    same("another port", free.open(3), ({"ok": 3}, 3))
    same("another user", alice.open(3), ({"ok": 3}, 3))
    same("refused", ruled.refused(), {1: 3, 6: 1})  # a program asks once whether it is to take the kernel
    same("fallbacks", ruled.status()["fallback_total"]["refused"], 6)
    check("line 1, deny: 3" in rig.command("status").stdout, "status does not show the rule")


def rules_hold_for_names(rig, ruled):
    path = ruled.names
    ruled.restart(f'[[rule]]\naction = "deny"\noperation = "connect"\nuid = {BOB}\npath = "{path}/*.deny"\n'
                  f'[[rule]]\naction = "kernel"\noperation = "connect"\nuid = {BOB}\npath = ["{path}/*.kernel", "@kernel*"]\n')
    for name, expected in ((f"{path}/a.deny", ({"EACCES": 2}, 0)), (f"{path}/a.kernel", ({"ok": 2}, 0)),
                           (f"{path}/a", ({"ok": 2}, 2)), (f"@kernel.{os.getpid()}", ({"ok": 2}, 0))):
        ruled.server(ALICE, name)
        same(name, ruled.client(BOB, name).open(2), expected)
        same(f"{name}, another user", ruled.client(ALICE, name).open(2), ({"ok": 2}, 2))
    same("refused", ruled.refused(), {1: 2, 6: 4})


def rules_hold_for_listening(rig, ruled):
    ruled.restart(f'[[rule]]\naction = "deny"\noperation = "listen"\nuid = {BOB}\n'
                  f'[[rule]]\naction = "kernel"\noperation = "listen"\nuid = {ALICE}\n')
    same("listening is denied", ruled.start(BOB, [PROGRAM, "-c", LISTENER]).line(), "EACCES")
    name = os.path.join(ruled.names, "denied")
    same("for a name too", ruled.server(BOB, name)[1], "13")
    _, port = ruled.server(ALICE)
    same("it listens in the kernel", ruled.client(BOB, port).open(2), ({"ok": 2}, 0))
    same("listeners", ruled.status()["listeners"], 0)


def rules_hold_by_program(rig, ruled):
    ruled.restart("")
    _, port = ruled.server(ALICE)
    ruled.reload(f'[[rule]]\naction = "deny"\noperation = "connect"\nprogram = "{os.path.dirname(PROGRAM)}/*"\n'
                 f'uid = {BOB}\n', "read again")
    same("the program", ruled.client(BOB, port).open(), ({"ECONNREFUSED": 1}, 0))
    other = os.path.join(rig.directory, "other-python")  # the same bytes by another name
    shutil.copy(PROGRAM, other)
    before = rig.accelerated()
    process = ruled.start(BOB, [other, "-c", CLIENT, port])
    same("another program", (process.ask("open 1"), rig.accelerated() - before), ("ok", 1))


# ---- reloading ------------------------------------------------------------------------------


def a_reload_ends_grants_and_not_connections(rig, ruled):
    ruled.restart("")
    _, port = ruled.server(ALICE)
    bob = ruled.client(BOB, port)
    bob.open(2)
    same("with a grant", bob.open(2), ({"ok": 2}, 2))
    check(rig.status()["granted_total"] > 0, "there was no grant to end")
    deny = f'[[rule]]\naction = "deny"\noperation = "connect"\nuid = {BOB}\n'
    ruled.reload(deny, "read again")
    same("after the reload", bob.open(2), ({"ECONNREFUSED": 2}, 0))
    same("open connections", ruled.status()["connections"], 4)
    ruled.reload("[[rule]]\n\naction = 5\n", f"{ruled.policy}:3: action must be a string")
    same("a wrong file changes nothing", bob.open(), ({"ECONNREFUSED": 1}, 0))
    ruled.reload("", "0 rules")
    same("when the rules are gone", bob.open(2), ({"ok": 2}, 2))


def what_is_sent_away_is_judged_anew(rig, ruled):
    """It was let in, and waits; its acceptor ends when there is a rule against it: it goes to no other one, by no way."""
    for rule, outcome in (("", "served"), (f'[[rule]]\naction = "deny"\noperation = "connect"\nuid = {BOB}\n', "ECONNRESET")):
        ruled.restart("")
        first = ruled.start(ALICE, [PROGRAM, "-c", SHARES_PORT, "0"])
        port = first.line().strip()
        before = rig.accelerated()
        client = ruled.start(BOB, [PROGRAM, "-c", WAITS, port])
        same("the client", client.line().strip(), "connected")
        same("accelerated", rig.accelerated() - before, 1)
        second = ruled.start(ALICE, [PROGRAM, "-c", SHARES_PORT, port])
        second.line()
        same("the second one", second.ask("accept"), "accepts")
        if rule:
            ruled.reload(rule, "read again")
        first.kill()
        same(f"under {rule!r}", client.line().strip(), outcome)


def who_goes_around_the_shim_is_not_accepted(rig, ruled):
    ruled.restart("")
    server, port = ruled.server(ALICE)
    same("a client", ruled.client(BOB, port).open(), ({"ok": 1}, 1))
    version = rig.status()["protocol"]

    def intrude():
        raw = RawClient(rig.run_dir, version)
        try:
            check(raw.hello() == 0, "no hello")
            status, words = raw.connect(int(port))
            check(status in (0, 1), f"connect is answered {status}")
            if status == 0:
                listener.append((words[0] & 0xFFFFFFFF, words[0] >> 32))
            return status, raw.begin(*listener[0], int(port))
        finally:
            raw.end()
    listener = []
    same("without a rule", intrude(), (0, "accepted"))
    # It is root's, who has no rule yet, and has forgotten that it may.
    ruled.reload(f'[[rule]]\naction = "deny"\noperation = "connect"\nuid = 0\nport = {port}\n', "read again")
    same("with a rule", intrude(), (1, "sent away"))
    same("others", ruled.client(BOB, port).open(), ({"ok": 1}, 1))
    check(server.running(), "the server has ended")


# ---- what the kernel would refuse --------------------------------------------------------------


def only_what_is_held_is_passed(rig, ruled):
    ruled.restart("")
    _, port = ruled.server(ALICE)
    raw = RawClient(rig.run_dir, rig.status()["protocol"])
    check(raw.hello() == 0, "no hello")
    words = raw.connect(int(port))[1]
    peer = words[0] & 0xFFFFFFFF
    same("the connection", raw.begin(peer, words[0] >> 32, int(port)), "accepted")
    (status, number), memory = raw.pass_region(peer)
    same("the region", status, 0)
    slot = 4
    same("what is not there", raw.deposit(number, slot), errno.ENOENT)
    at = SLOTS_AT + slot * SLOT_BYTES
    memory[at + 8:at + 12] = struct.pack("=I", 1)
    memory[at + 192:at + 196] = struct.pack("=I", peer)
    same("another's", raw.deposit(number, slot), errno.ENOENT)
    memory[at + 196:at + 200] = struct.pack("=I", raw.domain)
    same("its own", raw.deposit(number, slot), 0)
    raw.end()


def a_socket_file_is_as_open_as_its_mode(rig, ruled):
    ruled.restart("")
    path = os.path.join(ruled.names, "mode")
    ruled.server(ALICE, path)
    without = ["setpriv", "--bounding-set=-all"]
    version = rig.status()["protocol"]
    for mode, expected in ((0o777, (0, 0, 0, 0)), (0o700, (0, errno.EACCES, 0, errno.EACCES)), (0o077, (errno.EACCES, 0, 0, 0))):
        os.chmod(path, mode)
        asked = [for_others(rig, "name_asker.py", rig.run_dir, version, path, user=uid, then=then)
                 for uid, then in ((ALICE, []), (BOB, []), (0, []), (0, without))]
        same(f"mode {mode:o}", tuple(int(process.line()) for process in asked), expected)
        for process in asked:
            process.finish()


# ---- limits ---------------------------------------------------------------------------------


def limits_send_to_the_kernel(rig, ruled):
    ruled.restart(f"[[limit]]\nuid = {BOB}\nconnections = 3\n")
    _, port = ruled.server(ALICE)
    bob, alice = ruled.client(BOB, port), ruled.client(ALICE, port)
    same("of five", bob.open(5), ({"ok": 5}, 3))
    same("another user", alice.open(5), ({"ok": 5}, 5))
    same("refused", ruled.refused(), {1: {"connections": 2}})
    same("one process more", ruled.client(BOB, port).open(), ({"ok": 1}, 0))
    bob.close()
    wait_until(lambda: ruled.status()["connections"] <= 5, "they are closed")
    same("after closing", bob.open(4), ({"ok": 4}, 3))

    ruled.restart(f"[[limit]]\nuid = {BOB}\nclients = 2\n")
    _, port = ruled.server(ALICE)
    clients = [ruled.client(BOB, port) for _ in range(3)]
    same("clients", [c.open(2)[1] for c in clients], [2, 2, 0])
    check("no more processes of this user" in clients[2].process.log(), "it is not told why")
    clients[0].process.finish()
    wait_until(lambda: ruled.status()["clients"] == 2, "it is forgotten")
    same("when one has ended", ruled.client(BOB, port).open(), ({"ok": 1}, 1))

    ruled.restart(f'[[limit]]\nuid = {BOB}\nbytes = "100 KiB"\n')
    _, port = ruled.server(ALICE)
    bob = ruled.client(BOB, port)
    went, accelerated = bob.open(40)
    same("beyond the bytes", went, {"ok": 40})
    check(3 <= accelerated < 40, f"{accelerated} of 40 connections are accelerated")
    same("refused", ruled.refused(), {1: {"bytes": 40 - accelerated}})


def requests_are_limited(rig, ruled):
    ruled.restart(f"[[limit]]\nuid = {BOB}\nconnections = 1000\nrequests_per_second = 2\nburst = 10\n")
    _, port = ruled.server(ALICE)
    bob, alice = ruled.client(BOB, port), ruled.client(ALICE, port)
    went, accelerated = bob.open(30)
    same("beyond the requests", went, {"ok": 30})
    check(1 <= accelerated < 20, f"{accelerated} of 30 connections are accelerated")
    check(ruled.refused()[1].get("requests", 0) > 0, f"refused: {ruled.refused()}")
    same("another user", alice.open(30), ({"ok": 30}, 30))


def a_flood_slows_nobody(rig, ruled):
    """Of requests and of packets; the coordinator takes no more of them, and sleeps."""
    ruled.restart("[[limit]]\nuid = 0\nrequests_per_second = 50\nburst = 10\n")
    _, port = ruled.server(ALICE)
    alice = ruled.client(ALICE, port)
    raw = RawClient(rig.run_dir, rig.status()["protocol"])
    check(raw.hello() == 0, "no hello")
    begin = time.monotonic()
    for _ in range(60):
        raw.request(PING)
    check(time.monotonic() - begin > 0.5, "it is served as fast as ever")  # 20 at once, 40 at 50 a second
    for _ in range(100):
        raw.send(SYNC)
    same("another user", alice.open(30), ({"ok": 30}, 30))
    raw.end()


# ---- network namespaces ---------------------------------------------------------------------


def namespaces_do_not_meet(rig, ruled):
    ruled.restart("")
    holders = []
    for _ in range(2):
        holder = rig.start(["unshare", "-n", "sh", "-c", "ip link set lo up && echo up; read end; true"], preload=False, talks=True)
        same("a namespace", holder.line(), "up")
        holders.append(holder)
    first, second = (holder.pid for holder in holders)
    _, port = ruled.server(ALICE, 0, first)
    same("in the same namespace", ruled.client(BOB, port, first).open(), ({"ok": 1}, 1))
    same("in another", ruled.client(BOB, port, second).open(), ({"ECONNREFUSED": 1}, 0))
    same("outside", ruled.client(BOB, port).open(), ({"ECONNREFUSED": 1}, 0))
    ruled.server(BOB, port, second)
    ruled.reload(f'[[rule]]\naction = "deny"\nuid = {ALICE}\noperation = "connect"\nport = {port}\n', "read again")
    for netns in (first, second):
        same("another's", ruled.client(BOB, port, netns).open(), ({"ok": 1}, 1))
        same("with a rule", ruled.client(ALICE, port, netns).open(), ({"ECONNREFUSED": 1}, 0))
    for holder in holders:
        holder.finish()


def who_says_that_it_listens_has_to(rig, ruled):
    """In each namespace: the kernel knows. One who is asked to prove it is not root here."""
    ruled.restart("")
    holder = rig.start(["unshare", "-n", "sh", "-c", "ip link set lo up && echo up; read end; true"], preload=False, talks=True)
    holder.line()
    for netns in ([], ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]):
        for uid in (BOB, 0):
            process = for_others(rig, "pretending_listener.py", rig.run_dir, rig.status()["protocol"], user=uid, inside=netns)
            same(f"user {uid}", (process.line(), process.line()), ("0 13 13", "0"))
            process.finish()
    holder.finish()


def everything(rig):
    if os.geteuid() != 0:
        print("two users take root")
        sys.exit(77)
    if rig.native:
        return
    ruled = Ruled(rig)
    only = os.environ.get("ONLY", "")
    for test in (wrong_files_do_not_start, rules_hold_by_user_and_port, rules_hold_for_names, rules_hold_for_listening,
                 rules_hold_by_program, a_reload_ends_grants_and_not_connections,
                 what_is_sent_away_is_judged_anew, who_goes_around_the_shim_is_not_accepted,
                 only_what_is_held_is_passed, a_socket_file_is_as_open_as_its_mode, limits_send_to_the_kernel, requests_are_limited, a_flood_slows_nobody, namespaces_do_not_meet,
                 who_says_that_it_listens_has_to):
        if only in test.__name__:
            print(test.__name__, flush=True)
            test(rig, ruled)
    for process in ruled.processes:
        process.kill()
    rig.check_nothing_left()


run(everything, seconds=220)
