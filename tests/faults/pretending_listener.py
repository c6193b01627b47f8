"""Says to the coordinator that it listens where it does not, and then where it does: the answers."""
import socket
import sys

from raw_client import RawClient

raw = RawClient(sys.argv[1], int(sys.argv[2]))
print(raw.hello(), raw.listen(40999), raw.listen(80), flush=True)
s = socket.create_server(("127.0.0.1", 0))
print(raw.listen(s.getsockname()[1]), flush=True)
