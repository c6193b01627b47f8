#!/usr/bin/env python3
"""nginx reloads every 300 ms under load, and no request of any client fails."""
from nginx import SIZES, Nginx, every, figures, finish, wait_for_requests, write_documents
from rig import check, run


def reloads_fail_no_request(rig):
    nginx = Nginx(rig)
    paths = write_documents(nginx.documents, SIZES)
    nginx.start()
    clients = [nginx.client(paths, preload, keepalive=4, close=2) for preload in (True, False)]
    wait_for_requests(clients, 20)

    def reload():
        nginx.command("-s", "reload")
        for client in clients:
            figures(client)
        rig.audit()
    times = every(0.3, 8, reload)
    check(times > 5, f"only {times} reloads in 8 s")
    wait_for_requests(clients, 20)
    ours, theirs = [finish(client) for client in clients]
    print(f"{times} reloads; accelerated client {ours}; kernel client {theirs}")
    rig.check_accelerated(at_least=ours["connections"] // 2)
    nginx.stop()
    rig.check_nothing_left()


run(reloads_fail_no_request, seconds=80)
