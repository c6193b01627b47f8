#!/usr/bin/env python3
"""10 MiB by sendfile, by read and write, and through a proxy that is itself preloaded, compared."""
from nginx import Nginx, finish_by_itself, write_documents
from rig import run

SIZE = 10 << 20
UPSTREAM = "upstream behind {{ server 127.0.0.1:{port}; keepalive 8; }}"
THROUGH = """
    location / { proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection "";
                 proxy_buffering on; }
    location /unbuffered { rewrite ^/unbuffered(.*) $1 break; proxy_pass http://behind;
                           proxy_buffering off; }
"""


def every_byte_arrives(rig):
    sendfile = Nginx(rig, "sendfile", workers=2)
    [path] = write_documents(sendfile.documents, {"large": SIZE})
    copied = Nginx(rig, "copied", workers=2, sendfile="off")
    proxy = Nginx(rig, "proxy", workers=2, upstream=UPSTREAM.format(port=sendfile.port),
                  locations=THROUGH)
    servers = [sendfile, copied, proxy]
    for nginx in servers:
        nginx.start()
    for nginx, paths in ((sendfile, [path]), (copied, [path]),
                         (proxy, [path, f"/unbuffered{path}"])):
        before = 0 if rig.native else rig.accelerated()
        clients = [nginx.client(paths, preload, keepalive=2, close=2, count=6)
                   for preload in (True, False)]
        for client in clients:
            finish_by_itself(client)
        # Each keeps two connections and makes twelve; the proxy makes some of its own.
        rig.check_accelerated(at_least=14, before=before)
    for nginx in reversed(servers):
        nginx.stop()
    rig.check_nothing_left()


run(every_byte_arrives, seconds=70)
