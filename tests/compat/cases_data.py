"""Caches and databases."""
import os
import pathlib
import re
import signal
import socket
import time

from side import Failure, Side, check, digest, free_port, own, wait_until

HOME = "127.0.0.1"


def number(pattern, text):
    found = re.search(pattern, text)
    check(found, f"cannot read: {text[-200:]}")
    return float(found[1])


# ---- memcached --------------------------------------------------------------------------

VALUES = """
import hashlib, random, socket, sys
where = sys.argv[1]
s = socket.socket(socket.AF_UNIX if "/" in where else socket.AF_INET)
s.settimeout(20)
s.connect(where if "/" in where else ("127.0.0.1", int(where)))
f = s.makefile("rb")
values = {f"key{n}": random.Random(n).randbytes(n * 997 % 40000) for n in range(300)}
for key, value in values.items():
    s.sendall(b"set %s 0 0 %d\\r\\n%s\\r\\n" % (key.encode(), len(value), value))
    assert f.readline() == b"STORED\\r\\n"
s.sendall(b"".join(b"get %s\\r\\n" % key.encode() for key in values))
got = hashlib.sha256()
for key, value in values.items():
    assert f.readline().startswith(b"VALUE ")
    data = f.read(len(value) + 2)[:-2]
    assert data == value, key
    assert f.readline() == b"END\\r\\n"
    got.update(data)
s.sendall(b"incr nothing 1\\r\\nset n 0 0 1\\r\\n5\\r\\nincr n 37\\r\\n")
print(got.hexdigest()[:16], f.readline(), f.readline(), f.readline())
"""


def memcached(side: Side):
    port, unix = free_port(), side.path("memcached.sock")
    user = ["-u", "root"] if os.geteuid() == 0 else []
    side.serve(["memcached", "-l", HOME, "-p", port, "-t", 4, *user], port)
    side.serve(["memcached", "-s", unix, "-t", 2, *user], unix)
    for name, where in (("TCP", port), ("AF_UNIX", unix)):
        with side.step(f"300 values and counters over {name}") as values:
            values.append(side.output(["python3", "-c", VALUES, where]))
    with side.step("memcaslap"):
        conf = side.write("memcaslap.conf", "key\n64 64 1\nvalue\n64 64 1\ncmd\n0 0.1\n1 0.9\n")
        report = side.output(["memcaslap", "-s", f"{HOME}:{port}", "-T", 1, "-c", 16, "-t", "2s",
                              "-S", "2s", "-F", conf], 60)
        side.rate("operations/s", number(r"TPS: (\d+)", report), "/s")


# ---- redis ------------------------------------------------------------------------------

TRANSACTION = "MULTI\nSET a 1\nINCR a\nLPUSH list x y z\nEXEC\nGET a\nLRANGE list 0 -1\n" \
              "WATCH a\nMULTI\nINCR a\nDISCARD\nGET a\n"


def redis(side: Side):
    ports = [free_port(), free_port()]
    unix = side.path("redis.sock")
    for number_, port in enumerate(ports):
        directory = side.path(f"redis{number_}")
        os.mkdir(directory)
        more = ["--unixsocket", unix] if number_ == 0 else ["--replicaof", HOME, ports[0]]
        side.serve(["redis-server", "--port", port, "--bind", HOME, "--dir", directory,
                    "--save", "", "--repl-diskless-sync-delay", 0, *more], port)

    def cli(*words, to=ports[0], **how):
        where = ["-s", to] if isinstance(to, str) else ["-p", to]
        return side.output(["redis-cli", *where, *words], **how)
    for name, to in (("TCP", ports[0]), ("AF_UNIX", unix)):
        with side.step(f"MULTI, EXEC, WATCH, DISCARD over {name}") as values:
            cli("FLUSHALL", to=to)
            values.append(cli(to=to, data=TRANSACTION.encode()).split())
        with side.step(f"a value of 4 MiB over {name}") as values:
            cli("SETRANGE", "large", 4 << 20, "end", to=to)
            values.append(digest(cli("GET", "large", to=to)))
        with side.step(f"publish and subscribe over {name}") as values:
            subscriber = side.start(["redis-cli", *(["-s", to] if name == "AF_UNIX" else
                                                    ["-p", to]), "SUBSCRIBE", "news"])
            wait_until(lambda: "1" in cli("PUBSUB", "NUMSUB", "news").split(), "a subscriber")
            for word in ("one", "two", "three"):
                values.append(cli("PUBLISH", "news", word, to=to).strip())
            wait_until(lambda: "three" in subscriber.log(), "the messages")
            values.append(subscriber.log().split())
            side.stop(subscriber)
    with side.step("replication") as values:
        cli("EVAL", "for i=1,20000 do redis.call('SET','item'..i,string.rep(i,20)) end", 0)
        cli("WAIT", 1, 10000)
        wait_until(lambda: cli("DBSIZE", to=ports[1]) == cli("DBSIZE"), "the replica has all", 20)
        values += [cli("DBSIZE", to=ports[1]).strip(), cli("GET", "item777", to=ports[1])[:20]]
        check("master_link_status:up" in cli("INFO", "replication", to=ports[1]), "link is down")
    with side.step("BGREWRITEAOF under load") as values:
        cli("CONFIG", "SET", "appendonly", "yes")
        load = side.start(["redis-benchmark", "-p", ports[0], "-t", "set", "-n", 200000, "-r",
                           1000, "-q"])
        for _ in range(3):
            wait_until(lambda: "aof_rewrite_in_progress:0" in cli("INFO", "persistence"),
                       "the rewrite ends", 30)
            cli("BGREWRITEAOF")
        load.finish(60)
        wait_until(lambda: "aof_rewrite_in_progress:0" in cli("INFO", "persistence"),
                   "the last rewrite ends", 30)
        values.append("aof_last_bgrewrite_status:ok" in cli("INFO", "persistence"))
    for name, where in (("TCP", ["-p", ports[0]]), ("AF_UNIX", ["-s", unix])):
        with side.step(f"redis-benchmark over {name}"):
            report = side.output(["redis-benchmark", *where, "-t", "get", "-n", 100000, "-c", 16,
                                  "--csv"], 60)
            side.rate(f"GET/s over {name}", number(r'"GET","([\d.]+)"', report), "/s")


# ---- postgresql -------------------------------------------------------------------------

def postgresql(side: Side):
    bindir = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
    data = own(side.path("postgres"), "postgres")
    sockets = own(side.path("sockets"), "postgres")
    os.chmod(sockets, 0o755)
    port = free_port()
    who = {"user": "postgres"}
    side.output([bindir / "initdb", "-A", "trust", "-U", "postgres", "-N", "-D", data], 60, **who)
    # Its own user, not us, opens the log that every start() here has.
    server = side.start([bindir / "postgres", "-D", data, "-p", port, "-h", HOME, "-k", sockets,
                         "-c", "fsync=off", "-c", "autovacuum=off"], **who)
    where = {"TCP": ["-h", HOME], "AF_UNIX": ["-h", sockets]}

    def psql(sql, over="TCP", seconds=30, **how):
        return side.output([bindir / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *where[over], "-p",
                            port, "-U", "postgres", "-c", sql], seconds, **how)

    def answers():
        check(server.running(), f"postgres ended: {server.log()[-400:]}")
        try:
            return psql("select 1", "AF_UNIX").strip() == "1"
        except Failure:
            return False
    wait_until(answers, "postgres answers", 30)
    for over in where:
        with side.step(f"a million rows out and in over {over}") as values:
            out = side.path("rows")
            side.output(["sh", "-c", f"{bindir}/psql -XAtq {' '.join(where[over])} -p {port} "
                         "-U postgres -c \"copy (select g, md5(g::text) from "
                         f"generate_series(1, 1000000) g) to stdout\" > {out}"], 60)
            psql("drop table if exists rows; create table rows (g int, m text)")
            side.output(["sh", "-c", f"{bindir}/psql -XAtq {' '.join(where[over])} -p {port} "
                         f"-U postgres -c 'copy rows from stdin' < {out}"], 60)
            values += [digest(out), psql("select count(*), md5(string_agg(m, '' order by g)) "
                                         "from rows")]
        with side.step(f"listen, notify, errors and transactions over {over}") as values:
            values.append(psql("listen news; notify news, 'hello'; begin; select 1/2.0; "
                               "rollback; select 7", over))
    side.output([bindir / "pgbench", "-i", "-q", "-s", 2, "-h", HOME, "-p", port, "-U",
                 "postgres", "postgres"], 60)
    for over in where:
        with side.step(f"pgbench over {over}"):
            report = side.output([bindir / "pgbench", "-S", "-c", 4, "-j", 2, "-T", 3,
                                  *where[over], "-p", port, "-U", "postgres", "postgres"], 60)
            check("number of failed transactions: 0 " in report, report[-300:])
            side.rate(f"transactions/s over {over}", number(r"tps = ([\d.]+)", report), "/s")
    for over in where:
        with side.step(f"recovery after kill -9 of a backend over {over}") as values:
            psql("create table if not exists kept (n int); insert into kept values (1)")
            client = side.start([bindir / "psql", "-XAtq", *where[over], "-p", port, "-U",
                                 "postgres", "-c", "select pg_sleep(60)"])
            victim = "select pid from pg_stat_activity where query like 'select pg_sleep%'"
            wait_until(lambda: psql(victim).strip(), "a backend sleeps")
            os.kill(int(psql(victim)), signal.SIGKILL)
            wait_until(lambda: not client.running(), "the client hears of it", 20)
            values.append(client.status())
            wait_until(answers, "postgres has recovered", 30)
            values.append(psql("select count(*) from kept", over))
    with side.step("a query is cancelled"):
        client = side.start([bindir / "psql", "-XAtq", *where["TCP"], "-p", port, "-U",
                             "postgres", "-c", "select pg_sleep(60)"])
        wait_until(lambda: psql(victim).strip(), "a backend sleeps")
        client.send(signal.SIGINT)
        wait_until(lambda: not client.running(), "the query is cancelled", 20)
        check("canceling statement" in client.log(), client.log())
    with side.step("smart shutdown"):
        side.output([bindir / "pg_ctl", "-D", data, "-m", "fast", "-w", "stop"], 40, **who)


# ---- mariadb ----------------------------------------------------------------------------

def mariadb(side: Side):
    data = own(side.path("mariadb"), "mysql")
    unix, port = side.path("mariadb/sock"), free_port()
    side.output(["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=mysql",
                 "--auth-root-authentication-method=normal", "--skip-test-db"], 90)
    server = side.serve(["mariadbd", "--no-defaults", f"--datadir={data}", f"--port={port}",
                         f"--bind-address={HOME}", f"--socket={unix}", "--user=mysql",
                         f"--pid-file={data}/pid", "--innodb-flush-log-at-trx-commit=0"],
                        port, unix, seconds=60)
    where = {"TCP": ["-h", HOME, "-P", port, "--protocol=tcp"],
             "AF_UNIX": ["-S", unix, "--protocol=socket"]}

    def sql(text, over, seconds=30):
        return side.output(["mariadb", "--no-defaults", "-uroot", "-N", *where[over], "-e", text],
                           seconds)
    sql("create or replace user root@'127.0.0.1'; grant all on *.* to root@'127.0.0.1'; "
        "create database work", "AF_UNIX")
    for over in where:
        with side.step(f"200,000 rows over {over}") as values:
            values.append(digest(sql("select seq, md5(seq) from work.seq_1_to_200000", over)))
            sql("drop table if exists work.blobs; create table work.blobs (b longblob); "
                "insert into work.blobs values (repeat('x', 8000000))", over)
            values.append(digest(sql("select b from work.blobs", over)))
        with side.step(f"mysqlslap over {over}"):
            report = side.output(["mariadb-slap", "--no-defaults", "-uroot", *where[over],
                                  "--auto-generate-sql", "--concurrency=8",
                                  "--number-of-queries=8000", "--auto-generate-sql-load-type=read",
                                  "--csv"], 90)
            side.rate(f"queries/s over {over}", 8000 / float(report.split(",")[2]), "/s")
    with side.step("a connection is killed") as values:
        values.append(side.output(["mariadb", "--no-defaults", "-uroot", *where["TCP"], "-e",
                                   "kill connection_id()"], status=1, errors=True).split(":")[0])
    with side.step("shutdown"):
        sql("shutdown", "TCP")
        wait_until(lambda: not server.running(), "mariadbd ends", 40)


PROGRAMS = [
    (("memcached", ("memcached", "libmemcached-tools"), "values over TCP and AF_UNIX; memcaslap",
      memcached), {}),
    (("redis", ("redis-server", "redis-tools"),
      "TCP and AF_UNIX: MULTI, publish, replication, BGREWRITEAOF; redis-benchmark", redis),
     {"seconds": 150}),
    (("postgresql", ("postgresql-15", "postgresql-client-15"),
      "TCP and AF_UNIX: COPY, pgbench, cancel, recovery after kill -9 of a backend", postgresql),
     {"seconds": 240}),
    (("mariadb", ("mariadb-server", "mariadb-client"),
      "TCP and AF_UNIX: large results, mysqlslap, a killed connection", mariadb),
     {"seconds": 240}),
]
