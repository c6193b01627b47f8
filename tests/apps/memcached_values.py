#!/usr/bin/env python3
"""memcached with four threads gives every client exactly what that client stored."""
import time

from rig import (HERE, accepts_connections, check, find_program, free_port, run, wait_until)


def every_value_comes_back(rig):
    port = free_port()
    server = rig.start([find_program("memcached"), "-t", "4", "-l", "127.0.0.1", "-p", port,
                        "-U", "0", "-u", "root", "-m", "256"])
    wait_until(lambda: accepts_connections(port), "memcached answers")
    clients = [rig.script(HERE / "memcached_client.py", port, f"client{number}", preload=preload)
               for number, preload in enumerate([True, True, True, False])]
    time.sleep(5)
    for client in clients:
        check(client.running(), f"client {client.pid} ended early: {client.log()}")
    counts = [int(client.finish()) for client in clients]
    print(f"values compared: {counts}")
    rig.check_accelerated(at_least=3 * 4)
    server.kill(15)
    rig.check_nothing_left()


run(every_value_comes_back, seconds=50)
