"""What the kernel has of the sockmap baseline: BPF programs and cgroups."""
import ctypes
import glob
import os
import struct

BPF_PROG_GET_NEXT_ID, BPF_PROG_GET_FD_BY_ID, BPF_OBJ_GET_INFO_BY_FD = 11, 13, 15
SYS_BPF = {"x86_64": 321}.get(os.uname().machine, 280)
LIBC = ctypes.CDLL(None)


def bpf(command, *words):
    attributes = ctypes.create_string_buffer(struct.pack(f"{len(words)}I", *words), 128)
    return LIBC.syscall(SYS_BPF, command, attributes, 128), attributes.raw


def bpf_programs():
    """Numbers of those in the kernel that are ours."""
    number, found = 0, set()
    while True:
        status, answer = bpf(BPF_PROG_GET_NEXT_ID, number)
        if status != 0:
            return found
        number = struct.unpack_from("II", answer)[1]
        fd, _ = bpf(BPF_PROG_GET_FD_BY_ID, number)
        if fd >= 0:
            if b"sluice_" in bpf_info(fd):
                found.add(number)
            os.close(fd)


def bpf_info(fd):
    info = ctypes.create_string_buffer(256)
    bpf(BPF_OBJ_GET_INFO_BY_FD, fd, 256, ctypes.addressof(info) & 0xffffffff, ctypes.addressof(info) >> 32)
    return info.raw


def sockmap_cgroups():
    with open("/proc/self/mountinfo") as mounts:
        points = [line.split()[4] for line in mounts if " - cgroup2 " in line]
    return {path for point in points for path in glob.glob(point + "/**/sluice-bench.*", recursive=True)}
