"""Asks the coordinator whether it may connect to the socket of AF_UNIX at a path: the answer."""
import os
import socket
import sys

from raw_client import NAME, NAMED, RawClient

raw = RawClient(sys.argv[1], int(sys.argv[2]))
if raw.hello() != 0:
    sys.exit("not welcome")
raw.send(NAME, [os.open(sys.argv[3], os.O_PATH)], value=socket.SOCK_STREAM)
print(raw.wait_for(NAMED)[0][1], flush=True)
