#!/usr/bin/env python3
"""haproxy in front of nginx, which reloads under load: each reads and writes only what is between it and its
neighbours, and no request fails."""
import os

from nginx import SIZES, Nginx, every, figures, finish, wait_for_requests, write_documents
from rig import HERE, accepts_connections, check, find_program, free_port, run, wait_until

CONF = """\
global
  nbthread 1
  maxconn 200
defaults
  mode http
  timeout connect 10s
  timeout client 30s
  timeout server 30s
  option redispatch
  retries 3
  retry-on conn-failure empty-response
frontend in
  bind 127.0.0.1:{port}
  default_backend out
backend out
  server nginx 127.0.0.1:{to}
"""


def nobody_sees_what_is_not_his(rig):
    nginx = Nginx(rig)
    paths = write_documents(nginx.documents, SIZES)
    nginx.start()
    port = free_port()
    conf = os.path.join(rig.directory, "haproxy.cfg")
    with open(conf, "w") as file:
        file.write(CONF.format(port=port, to=nginx.port))
    haproxy = rig.start([find_program("haproxy"), "-db", "-f", conf])
    wait_until(lambda: accepts_connections(port), "haproxy answers")
    clients = [rig.script(HERE / "http_client.py", port, nginx.documents, "--paths", *paths, "--keepalive=4", "--close=2",
                          preload=preload) for preload in (True, False)]
    wait_for_requests(clients, 20)

    def reload():
        nginx.command("-s", "reload")
        for client in clients:
            figures(client)
        rig.audit()
    times = every(0.4, 6, reload)
    check(times > 3, f"only {times} reloads")
    wait_for_requests(clients, 20)
    ours, theirs = [finish(client) for client in clients]
    print(f"{times} reloads; accelerated client {ours}; kernel client {theirs}")
    # Client to haproxy, and haproxy to nginx.
    rig.check_accelerated(at_least=ours["connections"])
    haproxy.kill(15)
    nginx.stop()
    rig.check_nothing_left()


run(nobody_sees_what_is_not_his, seconds=80)
