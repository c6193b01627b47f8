"""Programs that are run rather than served: ssh, curl, iperf3, socat, stress-ng, shells, git."""
import json
import os
import pathlib
import pwd
import re
import signal

from cases_servers import documents, nginx, same_file, url
from side import Failure, Side, check, digest, free_port, is_listening, wait_until

HOME = "127.0.0.1"
SEPARATION = "/run/sshd"  # sshd's, made by its unit where there is an init

# ---- openssh ----------------------------------------------------------------------------


def openssh(side: Side):
    key, host, port = side.path("key"), side.path("hostkey"), free_port()
    for path in (key, host):
        side.output(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path])
    side.write("authorized", pathlib.Path(key + ".pub").read_text(), 0o600)
    conf = side.write("sshd_config", f"""
Port {port}
ListenAddress {HOME}
HostKey {host}
AuthorizedKeysFile {side.path('authorized')}
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
Subsystem sftp internal-sftp
""")
    made = os.geteuid() == 0 and not os.path.isdir(SEPARATION)
    if made:
        os.mkdir(SEPARATION, 0o755)
    try:
        talk_ssh(side, key, conf, port)
    finally:
        if made:
            os.rmdir(SEPARATION)


def talk_ssh(side, key, conf, port):
    side.serve(["/usr/sbin/sshd", "-D", "-e", "-f", conf], port)
    common = ["-F", "none", "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes",
              "-o", f"UserKnownHostsFile={side.path('known')}", "-o", "LogLevel=ERROR"]
    user = pwd.getpwuid(os.geteuid()).pw_name
    ssh = ["ssh", *common, "-p", port, f"{user}@{HOME}"]
    with side.step("a command, its status and its input") as values:
        values.append(side.output([*ssh, "wc -c; exit 7"], data=b"x" * 3_000_000, status=7))
    size = 100 << 20
    large = side.random_file("large", size)
    for protocol, options in (("sftp", ()), ("scp", ("-O",))):
        with side.step(f"scp of 100 MiB, {protocol} protocol") as values:
            target = side.path(f"copied-{protocol}")
            side.output(["scp", *common, "-q", *options, "-P", port, large,
                         f"{user}@{HOME}:{target}"], 60)
            values.append(digest(target))
            back = side.path(f"back-{protocol}")
            side.output(["scp", *common, "-q", *options, "-P", port, f"{user}@{HOME}:{target}",
                         back], 60)
            values.append(digest(back))
    with side.step("a terminal") as values:
        values.append(side.output([*ssh[:1], "-tt", *ssh[1:], "tty | cut -c1-8"]).strip())
    with side.step("a forwarded port") as values:
        documents(side)
        web, forwarded = free_port(), free_port()
        nginx(side, f"server {{ listen {HOME}:{web}; root {side.path('www')}; }}", web)
        tunnel = side.serve([*ssh[:1], "-N", "-L", f"{HOME}:{forwarded}:{HOME}:{web}", *ssh[1:]],
                            forwarded)
        same_file(side, values, url(forwarded, "large.bin"))
        side.stop(tunnel)
    with side.step("ten sessions over one connection") as values:
        master = side.path("master")
        server = side.serve([*ssh[:1], "-N", "-M", "-S", master, *ssh[1:]], master)
        for n in range(10):
            values.append(side.output([*ssh[:1], "-S", master, *ssh[1:], f"echo {n}"]))
        side.stop(server)


# ---- curl -------------------------------------------------------------------------------

def curl(side: Side):
    documents(side)
    port, tls = free_port(), free_port()
    side.output(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj",
                 "/CN=localhost", "-days", "2", "-keyout", side.path("tls.key"), "-out",
                 side.path("tls.crt")])
    nginx(side, f"""
      server {{ listen {HOME}:{port}; root {side.path('www')};
        location /put/ {{ root {side.directory}; dav_methods PUT; }}
        location /slow {{ limit_rate 1m; alias {side.path('www')}/large.bin; }} }}
      server {{ listen {HOME}:{tls} ssl http2; root {side.path('www')};
        ssl_certificate {side.path('tls.crt')}; ssl_certificate_key {side.path('tls.key')}; }}
      """, port, tls)
    os.mkdir(side.path("put"))
    with side.step("resumed, compressed, several at once") as values:
        target = side.path("resumed")
        with open(side.path("www/large.bin"), "rb") as whole, open(target, "wb") as part:
            part.write(whole.read(3 << 20))
        side.output(["curl", "-sS", "-C", "-", "-o", target, url(port, "large.bin")])
        values.append(digest(target))
        side.output(["curl", "-sS", "-Z", "--parallel-max", 8, *(
            word for n in range(24) for word in ("-o", side.path(f"at-once-{n}"),
                                                 url(port, "large.bin")))], 60)
        values.append({digest(side.path(f"at-once-{n}")) for n in range(24)})
    with side.step("TLS, HTTP/1.1 and HTTP/2") as values:
        for version in ("--http1.1", "--http2"):
            same_file(side, values, f"https://{HOME}:{tls}/large.bin", "-k", version)
    with side.step("upload") as values:
        values.append(side.output(["curl", "-sS", "-T", side.path("www/large.bin"), "-w",
                                   "%{http_code}", url(port, "put/file")]))
        values.append(digest(side.path("put/file")))
    with side.step("a time limit, and nobody listening") as values:
        side.output(["curl", "-sS", "--max-time", "1", "-o", "/dev/null", url(port, "slow")],
                    status=28)
        side.output(["curl", "-sS", url(free_port())], status=7)


# ---- iperf3 -----------------------------------------------------------------------------

def iperf3(side: Side):
    port = free_port()
    for name, options in (("one stream", ()), ("reverse", ("-R",)), ("4 streams", ("-P", 4)),
                          ("both ways", ("--bidir",)), ("zero copy", ("-Z",))):
        with side.step(name):
            server = side.serve(["iperf3", "-s", "-1", "-B", HOME, "-p", port], port)
            report = json.loads(side.output(["iperf3", "-c", HOME, "-p", port, "-t", 2, "-J",
                                             *options], 30))
            check("error" not in report, report.get("error"))
            side.rate(f"GB/s, {name}",
                      report["end"]["sum_received"]["bits_per_second"] / 8e9, "GB/s")
            wait_until(lambda: not server.running(), "the server ends", 10)


# ---- socat and netcat -------------------------------------------------------------------

def socat(side: Side):
    large = side.random_file("large", 8 << 20)
    port, second, unix = free_port(), free_port(), side.path("socat.sock")
    side.serve(["socat", f"TCP-LISTEN:{port},bind={HOME},reuseaddr,fork", "EXEC:cat"], port)
    side.serve(["socat", f"UNIX-LISTEN:{unix},fork", f"TCP:{HOME}:{port}"], unix)
    side.serve(["socat", f"TCP-LISTEN:{second},bind={HOME},reuseaddr,fork",
                f"UNIX-CONNECT:{unix}"], second)
    for name, to in (("EXEC over TCP", f"TCP:{HOME}:{port}"),
                     ("through AF_UNIX and TCP", f"UNIX-CONNECT:{unix}"),
                     ("three in a row", f"TCP:{HOME}:{second}")):
        with side.step(name) as values:
            back = side.path("back")
            side.output(["sh", "-c", f"socat -t 10 - {to} < {large} > {back}"], 40)
            values.append(digest(back))
    for name, target in (("SYSTEM", "SYSTEM:sha256sum"), ("EXEC with pipes", "EXEC:sha256sum,pipes"),
                         ("EXEC without a fork", "EXEC:sha256sum,nofork")):
        with side.step(name) as values:
            port = free_port()
            side.serve(["socat", "-t", "10", f"TCP-LISTEN:{port},bind={HOME},reuseaddr", target],
                       port)
            values.append(side.output(["sh", "-c", f"socat -t 10 - TCP:{HOME}:{port} < {large}"]))


def netcat(side: Side):
    large = side.random_file("large", 8 << 20)
    for name, server, client in (("TCP", "nc -l -N {home} {port}", "nc -N {home} {port}"),
                                 ("AF_UNIX", "nc -lU -N {path}", "nc -NU {path}")):
        with side.step(name) as values:
            where = {"home": HOME, "port": free_port(), "path": side.path("nc.sock")}
            got = side.path(f"got-{name}")
            listening = side.serve(["sh", "-c", f"exec {server.format(**where)} > {got}"],
                                   where["port"] if name == "TCP" else where["path"])
            side.output(["sh", "-c", f"{client.format(**where)} < {large}"])
            wait_until(lambda: not listening.running(), "the other nc ends")
            values.append(digest(got))


# ---- shells -----------------------------------------------------------------------------

def shells(side: Side):
    """Pipelines, and the redirections to a socket that bash has."""
    large = side.random_file("large", 64 << 20)
    for shell in ("dash", "bash"):
        with side.step(f"pipelines, {shell}") as values:
            values.append(side.output([shell, "-c", f"cat {large} | cat | tee {side.path('tee')} | "
                                       "sha256sum"], 60))
            values.append(digest(side.path("tee")))
            values.append(side.output([shell, "-c", "seq 1 300000 | sort -rn | head -n 3; yes | "
                                       "head -c 1000000 | wc -c; echo status $?"], 60))
            values.append(side.output([shell, "-c", f"x=$(cat {large} | head -c 100000 | od | tail "
                                       "-n 3); echo \"$x\"; (sleep 0.1; echo late) | cat"], 60))
    with side.step("many short pipelines") as values:
        values.append(side.output(["sh", "-c", "for n in $(seq 300); do echo $n | cat | "
                                   "grep -c .; done | sort | uniq -c"], 60))
    with side.step("pv") as values:
        side.output(["sh", "-c", f"pv -q {large} | pv -q -B 64k > {side.path('pv')}"], 60)
        values.append(digest(side.path("pv")))
    with side.step("xargs, parallel writers, named pipes") as values:
        values.append(side.output(["sh", "-c", "seq 200 | xargs -P 4 -n 1 echo | sort -n | "
                                   "sha256sum"], 60))
        fifo = side.path("fifo")
        values.append(side.output(["sh", "-c", f"mkfifo {fifo}; cat {large} > {fifo} & "
                                   f"sha256sum < {fifo}; wait"], 60))
    with side.step("bash process substitution and coproc") as values:
        values.append(side.output(["bash", "-c", "diff <(seq 1000) <(seq 1001); "
                                   "coproc cat; echo hello >&${COPROC[1]}; "
                                   "read x <&${COPROC[0]}; echo $x; exit 0"], 60))
    with side.step("bash /dev/tcp") as values:
        port = free_port()
        side.serve(["socat", f"TCP-LISTEN:{port},bind={HOME},fork", "EXEC:cat"], port)
        values.append(side.output(["bash", "-c", f"exec 3<>/dev/tcp/{HOME}/{port}; echo hello >&3; "
                                   "read x <&3; echo got $x; printf 'a\\nb\\n' >&3; head -n 2 <&3"]))
    with side.step("a pipeline, timed"):
        report = side.output(["bash", "-c", "TIMEFORMAT=%R; time (head -c 1000000000 /dev/zero | "
                              "cat | wc -c > /dev/null)"], 60, errors=True)
        side.rate("GB/s, head | cat | wc", 1 / max(float(report.strip()), 1e-3), "GB/s")


# ---- git and rsync ----------------------------------------------------------------------

def git(side: Side):
    repository, port = side.path("git/work"), free_port()
    env = {"GIT_CONFIG_GLOBAL": side.write("gitconfig", "[user]\nname = n\nemail = e@example.org\n"
                                           "[safe]\ndirectory = *\n[protocol \"file\"]\nallow = "
                                           "always\n"), "HOME": side.directory,
           "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z"}

    def run(*words, where=side.directory):
        return side.output(["git", "-C", where, *words], 60, environment=env)
    os.makedirs(repository)
    run("init", "-q", "-b", "main", repository)
    for n in range(30):
        side.write(f"git/work/file{n}", side.rig.random.randbytes(200_000))
    run("add", ".", where=repository)
    run("commit", "-q", "-m", "all", where=repository)
    side.serve(["git", "daemon", "--reuseaddr", f"--listen={HOME}", f"--port={port}",
                "--export-all", "--enable=receive-pack", f"--base-path={side.path('git')}"],
               port, environment=env)
    address = f"git://{HOME}:{port}/work"
    with side.step("clone") as values:
        run("clone", "-q", address, side.path("clone"))
        values.append(run("rev-parse", "HEAD", where=side.path("clone")))
        run("fsck", "--strict", where=side.path("clone"))
    with side.step("push") as values:
        side.write("clone/more", side.rig.random.randbytes(2_000_000))
        run("add", ".", where=side.path("clone"))
        run("commit", "-q", "-m", "more", where=side.path("clone"))
        run("push", "-q", "origin", "HEAD:refs/heads/other", where=side.path("clone"))
        values.append(run("rev-parse", "other", where=repository))


def rsync(side: Side):
    for n in range(40):
        side.random_file(f"tree/{n % 5}/file{n}", 60_000 * (n % 7))
    side.random_file("tree/large", 30 << 20)
    port = free_port()
    conf = side.write("rsyncd.conf", f"use chroot = no\n[tree]\npath = {side.path('tree')}\n"
                      f"[in]\npath = {side.path('in')}\nread only = no\n"
                      f"{'uid = root' if os.geteuid() == 0 else ''}\n")
    os.mkdir(side.path("in"))
    side.serve(["rsync", "--daemon", "--no-detach", f"--config={conf}", f"--address={HOME}",
                f"--port={port}"], port)

    def sums(where):
        return side.output(["sh", "-c", "find . -type f | sort | xargs sha256sum | sha256sum"],
                           directory=side.path(where), preload=False)
    with side.step("from the daemon") as values:
        side.output(["rsync", "-a", f"rsync://{HOME}:{port}/tree/", side.path("out") + "/"], 60)
        values.append(sums("out"))
    with side.step("to the daemon, and again with changes") as values:
        target = f"rsync://{HOME}:{port}/in/"
        side.output(["rsync", "-a", side.path("tree") + "/", target], 60)
        with open(side.path("tree/large"), "r+b") as file:
            file.seek(5 << 20)
            file.write(b"changed" * 1000)
        side.output(["rsync", "-ac", "--no-whole-file", side.path("tree") + "/", target], 60)
        values.append(sums("in"))
    with side.step("between two local processes") as values:
        side.output(["rsync", "-a", side.path("tree") + "/", side.path("local") + "/"], 60)
        values.append(sums("local"))


# ---- stress-ng --------------------------------------------------------------------------

STRESSORS = (("sock", ()), ("sock", ("--sock-domain", "ipv6")), ("sock", ("--sock-opts", "random")),
             ("sock", ("--sock-nodelay",)), ("sock", ("--sock-zerocopy",)), ("sockmany", ()),
             ("sockabuse", ()), ("sockpair", ()), ("sockfd", ()), ("sockdiag", ()),
             ("epoll", ()), ("epoll", ("--epoll-domain", "ipv4")), ("pipe", ()),
             ("pipe", ("--pipe-data-size", "4096")), ("pipeherd", ()), ("poll", ()), ("splice", ()),
             ("sendfile", ()), ("tee", ()), ("vm-splice", ()), ("sigpipe", ()), ("sigio", ()),
             ("sigfd", ()), ("eventfd", ()), ("fifo", ()), ("dup", ()), ("close", ()),
             ("fork", ()), ("vfork", ()), ("clone", ()), ("rlimit", ()))


def stress_ng(side: Side):
    for stressor, options in STRESSORS:
        name = " ".join([f"--{stressor}", *options])
        with side.step(name) as values:
            report = side.output(["stress-ng", f"--{stressor}", 2, "--verify", "-t", "2s",
                                  "--metrics-brief", "--temp-path", side.directory,
                                  *options], 30, errors=True)
            bad = [line for line in report.splitlines()
                   if re.search(r"\b(fail|error):", line)]
            check(not bad, f"{bad[:3]}")
            values.append("skipped" if "skipped: 2" in report else "run")
            found = re.search(rf"\] {stressor}\s+\d+\s+([\d.]+)\s+[\d.]+\s+[\d.]+\s+([\d.]+)", report)
            if found and stressor in ("sock", "sockpair", "sockfd", "epoll", "pipe", "poll"):
                side.rate(f"operations/s, {name}", found[2], "/s")


PROGRAMS = [
    (("openssh", ("openssh-server", "openssh-client", "nginx", "curl"),
      "commands, scp of 100 MiB by both protocols, a terminal, forwarding, shared connections",
      openssh), {"seconds": 240}),
    (("curl", ("curl", "nginx", "openssl"), "resume, parallel, TLS, HTTP/2, upload, time-outs",
      curl), {}),
    (("iperf3", ("iperf3",), "one and four streams, reverse, both ways, zero copy", iperf3), {}),
    (("socat", ("socat",), "TCP, AF_UNIX, EXEC with fork, pipes and neither", socat),
     {"seconds": 200}),
    (("netcat", ("netcat-openbsd",), "a file over TCP and AF_UNIX", netcat), {}),
    (("shells", ("bash", "dash", "pv", "socat"), "pipelines, named pipes, coproc, /dev/tcp", shells),
     {"seconds": 240}),
    (("git", ("git",), "clone and push through git daemon", git), {}),
    (("rsync", ("rsync",), "to and from a daemon", rsync), {}),
    (("stress-ng", ("stress-ng",), "sockets, pipes, epoll, poll, splice, fork and exec, --verify",
      stress_ng), {"seconds": 900}),
]
