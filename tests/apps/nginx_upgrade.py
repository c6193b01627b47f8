#!/usr/bin/env python3
"""nginx is replaced by a new binary under load (USR2, then QUIT), and no request fails."""
import os
import signal
import time

from nginx import SIZES, Nginx, figures, finish, wait_for_requests, write_documents
from rig import alive, check, children_of, run, wait_until


def upgrades_fail_no_request(rig):
    nginx = Nginx(rig)
    paths = write_documents(nginx.documents, SIZES)
    nginx.start()
    clients = [nginx.client(paths, preload, keepalive=4, close=2) for preload in (True, False)]
    wait_for_requests(clients, 20)
    for _ in range(2):
        upgrade(nginx, clients)
        rig.audit()
        before = 0 if rig.native else rig.accelerated()
        wait_for_requests(clients, 100)
        rig.check_accelerated(at_least=1, before=before)
    print([finish(client) for client in clients])
    nginx.stop()
    rig.check_nothing_left()


def upgrade(nginx, clients):
    old = nginx.master()
    os.kill(old, signal.SIGUSR2)
    wait_until(lambda: nginx.master(".oldbin") == old and nginx.master() not in (None, old),
               "the new master runs")
    new = nginx.master()
    wait_until(lambda: len(children_of(new)) >= 4, "the new master has its workers")
    wait_for_requests(clients, 50)  # from both
    os.kill(old, signal.SIGQUIT)
    wait_until(lambda: not alive(old), "the old master ends when it is told to quit", 15)
    check(alive(new) and nginx.master() == new, "the new master stays")
    for client in clients:
        figures(client)
    time.sleep(0.1)


run(upgrades_fail_no_request, seconds=60)
