"""Talks to an echo server and compares what comes back: python_client.py PORT KIND

KIND: blocking (one connection after the other), threads (at once), asyncio. Prints "good".
"""
import asyncio
import random
import socket
import sys
import threading

PORT, KIND = int(sys.argv[1]), sys.argv[2]
CONNECTIONS = 12
SIZES = [1, 2, 1000, 65_536, 1_000_000]


def messages(seed):
    source = random.Random(seed)
    return [source.randbytes(size) for size in SIZES]


def talk(seed):
    with socket.create_connection(("127.0.0.1", PORT), timeout=15) as connection:
        for message in messages(seed):
            sender = threading.Thread(target=connection.sendall, args=(message,))
            sender.start()
            got = b""
            while len(got) < len(message) and (data := connection.recv(100_000)):
                got += data
            sender.join()
            if got != message:
                raise ValueError(f"{len(got)} of {len(message)} bytes, or other ones")
        connection.shutdown(socket.SHUT_WR)
        if connection.recv(1) != b"":
            raise ValueError("no end of file")


async def talk_asynchronously(seed):
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    for message in messages(seed):
        writer.write(message)
        if await asyncio.wait_for(reader.readexactly(len(message)), 15) != message:
            raise ValueError(f"other bytes among {len(message)}")
    writer.write_eof()
    if await asyncio.wait_for(reader.read(1), 15) != b"":
        raise ValueError("no end of file")
    writer.close()
    await writer.wait_closed()


async def all_at_once():
    await asyncio.gather(*(talk_asynchronously(seed) for seed in range(CONNECTIONS)))


def in_threads():
    failures = []

    def drive(seed):
        try:
            talk(seed)
        except (OSError, ValueError) as error:
            failures.append(repr(error))
    threads = [threading.Thread(target=drive, args=(seed,)) for seed in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit(f"{failures}")


def one_after_the_other():
    for seed in range(CONNECTIONS):
        talk(seed)


{"blocking": one_after_the_other, "threads": in_threads,
 "asyncio": lambda: asyncio.run(all_at_once())}[KIND]()
print("good")
