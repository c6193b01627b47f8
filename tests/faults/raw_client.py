"""A client of the coordinator that is not the shim: it says whatever it likes, in the layout of shm/."""
import fcntl
import mmap
import os
import pathlib
import shutil
import socket
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples" / "nginx"))
from processes import wait_until  # noqa: E402

PACKET = struct.Struct("=QIHHIIII")
MESSAGE = struct.Struct("=HHI7Q")
MAGIC = 0x31_65_63_69_75_6C_73_00
HELLO, WELCOME, RESERVE, RESERVED, REGION, PEER, PEER_REGION = range(1, 8)
ANNOUNCE_PAIR, SYNC, NAME, NAMED, CHANNEL, CHANNEL_PASSED, PASS, DEPOSIT, SHARERS_BELL, STATUS = 9, 12, 15, 16, 17, 18, 19, 20, 24, 64
LISTEN, CONNECT, PING, MAY = 1, 4, 7, 12
PAGE = 4096
CLIENT_BYTES = 2 * PAGE
PAIR_BYTES = 256 << 20
SLOTS_AT, SLOT_BYTES, READY_AT = 0x40000, 256, PAGE
F_ADD_SEALS, SEALS = 1033, 0x1 | 0x2 | 0x4 | 0x10  # SEAL, SHRINK, GROW, FUTURE_WRITE
REQUEST_ENTRIES_AT, REPLY_ENTRIES_AT, REPLIES_HEAD_AT = 576, 192, 128  # of ClientRegion, ReplyRegion, ClientRegion
ENTRIES = 64
ACCEPTED, REDIRECT = 8, 16  # SlotState


def packet(version, kind, domain=0, value=0, value2=0, reserved=0, magic=MAGIC):
    return PACKET.pack(magic, version, kind, 0, domain, value, value2, reserved)


def v4_words(address):
    return struct.unpack("=QQ", bytes(10) + b"\xff\xff" + socket.inet_aton(address))


def sealed_memory(size, writes):
    """A memfd with `writes` ({offset: bytes}) in it, and our mapping of it."""
    fd = os.memfd_create("raw", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    memory = mmap.mmap(fd, size)
    for at, data in writes.items():
        memory[at:at + len(data)] = data
    fcntl.fcntl(fd, F_ADD_SEALS, SEALS)
    return fd, memory


def for_others(rig, script, *arguments, user=65534, inside=(), then=()):
    """Runs a script of this folder as nobody, who may not be able to read it here; as us, if we are not root."""
    copies = pathlib.Path(rig.directory, "copies")
    if not copies.exists():
        root = pathlib.Path(__file__).resolve().parents[2]
        for folder in ("tests/faults", "examples/nginx"):
            shutil.copytree(root / folder, copies / folder)
    path = copies / "tests" / "faults" / script
    becomes = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if os.geteuid() == 0 else []
    return rig.start([*inside, *becomes, *then, "/usr/bin/python3", path, *arguments], preload=False, talks=True)


def lap_mark(position):
    """shm/message_ring.h: what an entry's status has in its highest bit once it is published."""
    return 0x8000 if position // ENTRIES % 2 == 0 else 0


class Bell:
    """shm/bell.h: one end rings, the other hears."""

    def __init__(self):
        self.hears, self.rings = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.rings.shutdown(socket.SHUT_WR)

    def close(self):
        self.hears.close()
        self.rings.close()


class RawClient:
    def __init__(self, run_dir, version):
        self.version = version
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.socket.connect(os.path.join(run_dir, "coordinator.sock"))
        self.bell = Bell()
        self.messages = 0
        self.kept = []  # packets that came while another was waited for

    def send(self, kind, fds=(), **fields):
        data = packet(self.version, kind, **fields)
        if fds:
            socket.send_fds(self.socket, [data], list(fds))
        else:
            self.socket.send(data)

    def receive(self):
        """The next packet: (type, status, domain, value, value2, reserved), descriptors."""
        data, fds, _, _ = socket.recv_fds(self.socket, 4096, 8)
        if not data:
            raise ConnectionError("the coordinator has hung up")
        fields = PACKET.unpack(data[:PACKET.size])
        return fields[2:], fds

    def wait_for(self, kind):
        while True:
            fields, fds = self.receive()
            if fields[0] == kind:
                return fields, fds
            self.kept.append((fields, fds))

    def hello(self, wanted=0):
        """Registers. The status: 0, or why not."""
        region, self.client_memory = sealed_memory(CLIENT_BYTES, {0: struct.pack("=QI", MAGIC, self.version)})
        self.send(HELLO, [region, self.bell.rings.fileno()], domain=wanted)
        os.close(region)
        (_, status, self.domain, *_), fds = self.wait_for(WELCOME)
        if status == 0:
            self.reply_memory = mmap.mmap(fds[0], CLIENT_BYTES, prot=mmap.PROT_READ)
            self.summons = fds[2]
        return status

    def request(self, kind, *words, seconds=10):
        """The reply's status and words."""
        position = self.messages
        self.messages += 1
        offset, mark = position % ENTRIES * 64, lap_mark(position)
        message = MESSAGE.pack(kind, mark, self.messages, *words, *[0] * (7 - len(words)))
        at = REQUEST_ENTRIES_AT + offset
        self.client_memory[at + 8:at + 64] = message[8:]
        self.client_memory[at:at + 8] = message[:8]  # published
        os.eventfd_write(self.summons, 1)

        def reply():
            return MESSAGE.unpack_from(self.reply_memory, REPLY_ENTRIES_AT + offset)
        wait_until(lambda: reply()[1] & 0x8000 == mark, f"a reply to request {kind}", seconds)
        self.client_memory[REPLIES_HEAD_AT:REPLIES_HEAD_AT + 8] = struct.pack("=Q", self.messages)
        return reply()[1] & 0x7fff, reply()[3:]

    def listen(self, port, address="127.0.0.1"):
        return self.request(LISTEN, *v4_words(address), port | socket.AF_INET << 16, 128 | 1 << 32)[0]

    def connect(self, port, address="127.0.0.1"):
        return self.request(CONNECT, *v4_words(address), port | socket.AF_INET << 16, 1)

    def begin(self, peer, listener, port):
        """A connection in a region of ours, without asking whether we may. Its end: "accepted" or "sent away"."""
        generation = 0 if self.domain < peer else 1
        slot = generation  # the first that is ours to begin
        name = lambda p: b"".join((struct.pack("=QQ", *v4_words("127.0.0.1")), struct.pack("=HH", p, socket.AF_INET)))
        at = SLOTS_AT + slot * SLOT_BYTES
        header = struct.pack("=QIIII", MAGIC, self.version, self.domain, peer, generation)
        region, memory = sealed_memory(PAIR_BYTES, {
            0: header,
            at + 128: struct.pack("=I", listener) + name(40000) + name(port),
            at + 192: struct.pack("=I", self.domain),
            at + 8: struct.pack("=I", 1),                 # the generation of the connection
            READY_AT: struct.pack("=Q", 1 << 32 | slot)})
        self.send(REGION, [region], domain=peer, value=generation)
        os.close(region)
        (_, status, *_), fds = self.wait_for(PEER)
        if status != 0:
            return f"no pair: {status}"
        with socket.socket(fileno=fds[0]) as bell:
            bell.shutdown(socket.SHUT_WR)
        theirs = mmap.mmap(self.region_of(peer), PAIR_BYTES, prot=mmap.PROT_READ)

        def said():
            held, state = struct.unpack_from("=II", theirs, at + 8)
            return held == 1 and state & (ACCEPTED | REDIRECT)
        wait_until(said, "the acceptor says what it makes of the connection", 10)
        return "sent away" if said() & REDIRECT else "accepted"

    def pass_region(self, peer):
        """Opens a passing region for the pair made by begin(). Its number, and our mapping of it."""
        generation = 0 if self.domain < peer else 1
        bell = Bell()
        self.send(PASS, [bell.rings.fileno(), bell.hears.fileno()], domain=peer, value=generation, value2=self.domain)
        bell.close()
        (_, status, _, number, *_), fds = self.wait_for(PASS)
        return (status, number), mmap.mmap(fds[0], PAIR_BYTES) if fds else None

    def deposit(self, number, slot):
        """Whether it may pass the connection in that slot."""
        ends = socket.socketpair()
        self.send(DEPOSIT, [end.fileno() for end in ends], value=number, value2=slot, reserved=1)
        for end in ends:
            end.close()
        return self.wait_for(DEPOSIT)[0][1]

    def region_of(self, peer):
        """What the peer writes for us, once it has come."""
        while True:
            for fields, fds in self.kept:
                if fields[0] == PEER_REGION and fields[2] == peer:
                    return fds[0]
            self.kept.append(self.receive())

    def end(self):
        self.socket.close()
