"""Serves each connection in a child that waits for its end, one way after the other, and says how
long after the death of the client, a child too, that end was seen."""
import os
import select
import signal
import socket
import time

PATIENCE_SECONDS = 8
CLIENT = """
import socket, sys, time
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(b"x")
time.sleep(100)
"""


def by_poll(connection):
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return poll.poll(PATIENCE_SECONDS * 1000)


def by_epoll(connection):
    with select.epoll() as epoll:
        epoll.register(connection, select.EPOLLIN)
        return epoll.poll(PATIENCE_SECONDS)


WAYS = {"recv": lambda connection: True, "poll": by_poll, "epoll": by_epoll,
        "select": lambda connection: select.select([connection], [], [], PATIENCE_SECONDS)[0]}


def child_sees_the_end(connection, wait):
    pid = os.fork()
    if pid == 0:
        signal.alarm(PATIENCE_SECONDS)
        try:
            ended = wait(connection) and connection.recv(1) == b""
        except ConnectionResetError:
            ended = True
        os._exit(0 if ended else 1)
    connection.close()
    return pid


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    port = str(listener.getsockname()[1])
    for name, wait in WAYS.items():
        for asleep in (False, True):
            client = os.posix_spawnp("python3", ["python3", "-c", CLIENT, port], os.environ)
            connection, _ = listener.accept()
            assert connection.recv(1) == b"x"
            child = child_sees_the_end(connection, wait)
            while asleep and sleeps_not(child):
                time.sleep(0.01)
            os.kill(client, signal.SIGKILL)
            os.waitpid(client, 0)
            status = os.waitpid(child, 0)[1]
            print(name, "asleep" if asleep else "at once", "good" if status == 0 else status,
                  flush=True)


def sleeps_not(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "S"


main()
