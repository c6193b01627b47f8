#!/usr/bin/env python3
"""nginx as a daemon with four workers under the usual load generator, preloaded and not."""
import re

from nginx import Nginx, write_documents
from rig import check, find_program, run


def load_is_served(rig):
    nginx = Nginx(rig)
    paths = write_documents(nginx.documents, {"page": 3000})
    nginx.start()
    url = f"http://127.0.0.1:{nginx.port}{paths[0]}"
    for connections in (1, 64):
        before = 0 if rig.native else rig.accelerated()
        loads = [rig.start([find_program("wrk"), "-t1", f"-c{connections}", "-d2s", url], preload)
                 for preload in (True, False)]
        for load in loads:
            load.finish()
            output = load.log()
            requests = int(re.search(r"(\d+) requests in", output)[1])
            check(requests > 0 and not re.search("Socket errors|Non-2xx", output),
                  f"wrk, {connections} connections: {output}")
        rig.check_accelerated(at_least=connections, before=before)
    nginx.stop()
    rig.check_nothing_left()


run(load_is_served, seconds=40)
