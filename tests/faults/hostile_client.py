"""What a hostile process can do to the coordinator's socket: hostile_client.py RUN_DIR VERSION. It takes orders."""
import errno
import os
import socket
import struct
import sys
import threading

from raw_client import CHANNEL, CHANNEL_PASSED, MAGIC, RESERVE, RESERVED, SHARERS_BELL, STATUS, SYNC, Bell, RawClient, packet

run_dir, version = sys.argv[1], int(sys.argv[2])
held = []


def stranger():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(10)
    s.connect(os.path.join(run_dir, "coordinator.sock"))
    return s


def hangs_up(s):
    """Whether the other side does, whatever it says before."""
    try:
        while s.recv(65536):
            pass
    except (ConnectionError, BrokenPipeError):
        pass
    except TimeoutError:
        return False
    return True


def registered():
    client = RawClient(run_dir, version)
    if client.hello() != 0:
        raise ConnectionError("not welcome")
    return client


def partial_messages():
    for size in (1, 7, 8, 31, 33, 183, 185, 5000, 100000):
        s = stranger()
        s.send(packet(version, SYNC).ljust(size, b"x")[:size])
        if not hangs_up(s):
            return f"{size} bytes are kept waiting"
    return "done"


def nonsense():
    """Each type, from a stranger and from a client, without what goes with it; and no type at all."""
    for kind in [*range(0, 80), 65535]:
        if kind == 66:  # kStop is refused, and to root it would not be
            continue
        for client in (stranger(), registered().socket):
            try:
                for fields in ({}, {"domain": 2**32 - 1, "value": 2**32 - 1, "value2": 2**32 - 1, "reserved": 2**32 - 1}):
                    client.send(packet(version, kind, **fields))
                    client.send(packet(version, kind, **fields) + b"\xff" * 152)
                client.send(packet(version, SYNC, magic=MAGIC + 1))
            except (ConnectionError, BrokenPipeError):
                pass
            if not hangs_up(client):
                return f"type {kind} is kept waiting"
    return "done"


def silence():
    """Many connections that say nothing."""
    for _ in range(300):
        held.append(stranger())
    return "done"


def descriptors():
    """Many descriptors with each packet, and what they are is no good."""
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(60)] + [os.eventfd(0) for _ in range(60)]
    for kind in (1, 3, 5, 13, 15, 17, 19, 20, 23):
        for client in (stranger(), registered().socket):
            try:
                for _ in range(50):
                    socket.send_fds(client, [packet(version, kind)], fds)
            except (ConnectionError, BrokenPipeError):
                pass
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:  # the kernel lets no more be under way
                    raise
            if not hangs_up(client):
                return f"{len(fds)} descriptors are taken"
    for fd in fds:
        os.close(fd)
    return "done"


def until_dropped(client, data):
    """Sends and never reads. The other side may take it until it has enough of it."""
    client.settimeout(2)
    try:
        for _ in range(200000):
            client.send(data)
    except (ConnectionError, BrokenPipeError):
        return True
    except TimeoutError:
        return True  # nor does it read any more
    return False


def slowness():
    for client, kind in ((registered().socket, SYNC), (stranger(), STATUS)):
        if not until_dropped(client, packet(version, kind)):
            return f"{kind} is answered without end"
    return "done"


def lingering_socket():
    """Whose last close() waits for a minute: its peer takes nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    s = socket.create_connection(listener.getsockname())
    held.extend((listener, listener.accept()[0]))
    s.setblocking(False)
    try:
        while True:
            s.send(bytes(65536))
    except BlockingIOError:
        pass
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    return s


def close_beside(*fds):
    """It is the last one perhaps, and waits itself."""
    for fd in fds:
        threading.Thread(target=os.close, args=(fd,), daemon=True).start()


def lingering():
    """As a descriptor of a packet, as one of too many, in the queue of a socket, and unread when the end comes."""
    for way in ("plain", "many", "nested", "unread"):
        s, slow = stranger(), lingering_socket()
        more = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)] if way == "many" else []
        if way == "nested":
            ours, theirs = socket.socketpair()
            socket.send_fds(ours, [b"x"], [slow.fileno()])
            socket.send_fds(s, [packet(version, SYNC)], [theirs.fileno()])
            close_beside(theirs.detach(), ours.detach())
        else:
            if way == "unread":
                s.send(b"the end")
            try:
                socket.send_fds(s, [packet(version, SYNC)], [*more, slow.fileno()])
            except (ConnectionError, BrokenPipeError):
                pass  # it was quicker
        for fd in more:
            os.close(fd)
        close_beside(slow.detach(), s.detach())
    return "done"


def channels(victim):
    """Descriptors for another process, until that is refused; and then that many again."""
    client = registered()
    own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    refused = 0
    for _ in range(3000):
        client.send(CHANNEL, [theirs.fileno()], domain=victim)
        (_, status, *_), _ = client.wait_for(CHANNEL_PASSED)
        refused += status != 0
    held.append(client)
    return f"done {refused}"


def bells(victim):
    """As a child that shares a side of a pair with its parent, again and again."""
    parent = registered()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent.send(RESERVE, [theirs.fileno()])
    theirs.close()
    child = RawClient.__new__(RawClient)
    child.version, child.socket, child.bell, child.messages, child.kept = version, ours, Bell(), 0, []
    ours.settimeout(10)
    (_, status, domain, *_), fds = child.wait_for(RESERVED)
    if status == 0:
        child.socket = socket.socket(fileno=fds[0])
        child.socket.settimeout(10)
    if status != 0 or child.hello(domain) != 0:
        return "the child is not welcome"
    for _ in range(3000):
        child.send(SHARERS_BELL, domain=victim, value2=parent.domain)
    child.send(SYNC)
    child.wait_for(SYNC)
    held.extend((parent, child))
    return "done"


ORDERS = {f.__name__: f for f in (partial_messages, nonsense, silence, descriptors, slowness, lingering, channels, bells)}
for line in sys.stdin:
    name, *arguments = line.split()
    print(ORDERS[name](*map(int, arguments)), flush=True)
