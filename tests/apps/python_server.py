"""Serves on a port of its own, which it prints, until its input ends: python_server.py KIND DIR

KIND: http (http.server), threads and forks (socketserver), asyncio; all but http send back what
they receive.
"""
import asyncio
import http.server
import os
import socketserver
import sys
import threading


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)


class Files(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments):
        super().__init__(*arguments, directory=sys.argv[2])

    def log_message(self, *arguments):
        pass


class Forking(socketserver.ForkingMixIn, socketserver.TCPServer):
    request_queue_size = 128


class Threading(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    request_queue_size = 128


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def serve_asyncio():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    await ended.wait()


def serve(server_class, handler):
    with server_class(("127.0.0.1", 0), handler) as server:
        print(server.server_address[1], flush=True)
        threading.Thread(target=lambda: (os.read(0, 1), server.shutdown()), daemon=True).start()
        server.serve_forever(poll_interval=0.05)


KINDS = {"http": lambda: serve(http.server.ThreadingHTTPServer, Files),
         "threads": lambda: serve(Threading, Echo),
         "forks": lambda: serve(Forking, Echo),
         "asyncio": lambda: asyncio.run(serve_asyncio())}
KINDS[sys.argv[1]]()
