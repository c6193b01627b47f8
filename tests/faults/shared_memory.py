"""What is in the shared memory of a running process, seen from outside (proc(5))."""
import struct

PAIR_HEADER = struct.Struct("<QIII")  # shm/layout.h, PairHeader: magic, version, writer, reader
ALIVE_OFFSET, ALIVE_BYTES = 64 + 64 + 65536 // 8, 65536 // 8  # Directory::alive


def mappings(pid, name):
    """Where each mapping of a region of this name begins."""
    try:
        with open(f"/proc/{pid}/maps") as file:
            return [int(line.split("-")[0], 16) for line in file if f"memfd:{name}" in line]
    except OSError:
        return []


def peek(pid, address, count):
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(count)


def mapped_pairs(pid):
    """(writer, reader) of each pair region that a process maps."""
    pairs = []
    for address in mappings(pid, "sluice-pair"):
        try:
            _, _, writer, reader = PAIR_HEADER.unpack(peek(pid, address, PAIR_HEADER.size))
        except (OSError, struct.error):
            continue  # unmapped meanwhile, or the process has ended
        pairs.append((writer, reader))
    return pairs


def domain_of(pid):
    """As the newest coordinator calls it; 0 if it has not met one."""
    found = 0
    for address in mappings(pid, "sluice-replies"):
        found = struct.unpack("<QII", peek(pid, address, 16))[2]
    return found


def living_domains(coordinator):
    """As the coordinator's directory says."""
    (address,) = mappings(coordinator, "sluice-directory")
    bits = int.from_bytes(peek(coordinator, address + ALIVE_OFFSET, ALIVE_BYTES), "little")
    return {domain for domain in range(8 * ALIVE_BYTES) if bits >> domain & 1}
