"""Connections to an echo server that send and never read: slow_reader.py PORT COUNT. Sends on each as much as it takes;
says so ("full"), and when asked again whether any of them took more since ("0" bytes)."""
import select
import socket
import sys

CHUNK = bytes(65536)


def fill(connections, patience_ms):
    """Sends until nothing has been taken for that long. How much was taken."""
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLOUT)
    by_fd = {connection.fileno(): connection for connection in connections}
    taken = 0
    while ready := poll.poll(patience_ms):
        for fd, _ in ready:
            try:
                taken += by_fd[fd].send(CHUNK)
            except BlockingIOError:
                pass
    return taken


connections = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(int(sys.argv[2]))]
for one in connections:
    one.setblocking(False)
print(fill(connections, 1000), flush=True)
for line in sys.stdin:
    print(fill(connections, 0), flush=True)
