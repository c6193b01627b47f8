#!/usr/bin/env python3
"""Python's servers, preloaded or not, serve clients that are preloaded or not."""
import os

from nginx import finish_by_itself, write_documents
from rig import HERE, check, run

CONNECTIONS = 12  # as in python_client.py
MIXED = ((True, True), (True, False), (False, True))


def all_sorts_talk(rig):
    documents = os.path.join(rig.directory, "documents")
    paths = write_documents(documents, {"page": 5000, "picture": 700_000})
    for kind in ("threads", "forks", "asyncio"):
        for server_preloaded, client_preloaded in MIXED:
            talk(rig, kind, server_preloaded, client_preloaded)
    for server_preloaded, client_preloaded in MIXED:
        fetch(rig, documents, paths, server_preloaded, client_preloaded)
    rig.check_nothing_left()


def talk(rig, kind, server_preloaded, client_preloaded):
    before = 0 if rig.native else rig.accelerated()
    server = rig.script(HERE / "python_server.py", kind, "-", preload=server_preloaded)
    port = server.line()
    clients = [rig.script(HERE / "python_client.py", port, how, preload=client_preloaded)
               for how in ("blocking", "threads", "asyncio")]
    for client in clients:
        output = client.finish()
        check(output == "good\n", f"{kind} server: {output}")
    server.finish()
    both = server_preloaded and client_preloaded
    rig.check_accelerated(at_least=len(clients) * CONNECTIONS if both else 0, before=before)


def fetch(rig, documents, paths, server_preloaded, client_preloaded):
    before = 0 if rig.native else rig.accelerated()
    server = rig.script(HERE / "python_server.py", "http", documents, preload=server_preloaded)
    client = rig.script(HERE / "http_client.py", server.line(), documents, "--paths", *paths,
                        "--close=3", "--count=10", preload=client_preloaded)
    finish_by_itself(client)
    server.finish()
    both = server_preloaded and client_preloaded
    rig.check_accelerated(at_least=3 * 10 if both else 0, before=before)


run(all_sorts_talk, seconds=80)
