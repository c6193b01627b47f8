"""Web servers and proxies."""
import os
import pathlib
import re
import signal
import threading
import time

from side import Failure, Side, check, digest, free_port, own, wait_until

LARGE = 8 << 20
HOME = "127.0.0.1"


def url(port, path=""):
    return f"http://{HOME}:{port}/{path}"


def fetch(side, *arguments, seconds=30, **how):
    return side.output(["curl", "-sS", "--fail", "--max-time", seconds - 5, *arguments],
                       seconds=seconds, **how)


def same_file(side, values, address, *arguments):
    """Downloads it and notes its digest."""
    target = side.path("downloaded")
    fetch(side, *arguments, "-o", target, address)
    values.append(digest(target))


def requests_per_s(side, address, *arguments, count=20000, connections=16):
    report = side.output(["ab", "-q", "-k", "-n", count, "-c", connections, *arguments, address],
                         seconds=90)
    bad = re.search(r"(Failed requests|Non-2xx responses):\s+([1-9]\d*)", report)
    check(not bad, f"ab: {bad and bad[0]}")
    return float(re.search(r"Requests per second:\s+([\d.]+)", report)[1])


def wrk_requests_per_s(side, address, connections=8):
    """For servers that serve one connection at a time: ab also opens some that it never uses."""
    report = side.output(["wrk", "-t1", f"-c{connections}", "-d2s", address], seconds=60)
    check("Non-2xx" not in report, report)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", report)[1])


class Loader:
    """Requests one after the other, each on a connection of its own, until it is stopped."""

    def __init__(self, side, address, at_once=3):
        self.side, self.address = side, address
        self.answers, self.problems = 0, []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._drive) for _ in range(at_once)]

    def _drive(self):
        while not self._stopping.is_set():
            try:
                fetch(self.side, "-o", "/dev/null", self.address, seconds=20)
                self.answers += 1
            except (Failure, OSError) as failure:
                self.problems.append(str(failure))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.has_answers(3)
        return self

    def __exit__(self, *exception):
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def has_answers(self, more):
        target = self.answers + more
        wait_until(lambda: self.answers >= target or self.problems, "answers under load", 30)

    def check(self):
        check(not self.problems, f"{len(self.problems)} of {self.answers} requests failed: "
                                 f"{self.problems[:1]}")


def documents(side):
    side.write("www/small.html", "<p>small</p>\n" * 20)
    return digest(side.random_file("www/large.bin", LARGE))


# ---- nginx ------------------------------------------------------------------------------

NGINX = """\
{user}
daemon off;
worker_processes 2;
pid {directory}/{name}.pid;
error_log {directory}/{name}.log;
env LD_PRELOAD;
env SLUICE_DIR;
events {{ worker_connections 512; }}
http {{
  access_log off;
  keepalive_requests 1000000;
  client_max_body_size 64m;
  client_body_temp_path {directory}/{name}.body;
  proxy_temp_path {directory}/{name}.proxy;
  fastcgi_temp_path {directory}/{name}.fastcgi;
  uwsgi_temp_path {directory}/{name}.uwsgi;
  scgi_temp_path {directory}/{name}.scgi;
  {body}
}}
"""


def nginx(side: Side, body, *ports, name="nginx", prefix=()):
    user = "user root;" if os.geteuid() == 0 else ""
    conf = side.write(f"{name}.conf", NGINX.format(
        user=user, directory=side.directory, name=name, body=body))
    return side.serve([*prefix, "nginx", "-p", side.directory, "-c", conf,
                       "-e", side.path(f"{name}.log")], *ports)


def backend(side, port, name="backend", text="backend"):
    return nginx(side, f"""server {{
        listen {HOME}:{port}; root {side.path('www')};
        location = /who {{ return 200 "{text}\\n"; }} }}""", port, name=name)


def nginx_proxies(side: Side):
    documents(side)
    front, behind, h2, grpc = (free_port() for _ in range(4))
    backend(side, behind)
    nginx(side, f"""
      upstream behind {{ server {HOME}:{behind}; keepalive 8; }}
      server {{ listen {HOME}:{front}; root {side.path('www')};
        location /proxy/ {{ proxy_pass http://behind/; proxy_http_version 1.1;
                            proxy_set_header Connection ""; }}
        location /closing/ {{ proxy_pass http://{HOME}:{behind}/; }} }}
      server {{ listen {HOME}:{h2} http2; root {side.path('www')}; }}
      server {{ listen {HOME}:{grpc} http2; location / {{ grpc_pass grpc://{HOME}:{h2}; }} }}
      """, front, h2, grpc)
    for path in ("small.html", "large.bin"):
        with side.step(f"{path}, static") as values:
            same_file(side, values, url(front, path))
        with side.step(f"{path}, proxy_pass, kept alive") as values:
            same_file(side, values, url(front, "proxy/" + path))
        with side.step(f"{path}, proxy_pass, a connection each") as values:
            same_file(side, values, url(front, "closing/" + path))
        with side.step(f"{path}, HTTP/2") as values:
            same_file(side, values, url(h2, path), "--http2-prior-knowledge")
        with side.step(f"{path}, grpc_pass") as values:
            same_file(side, values, url(grpc, path), "--http2-prior-knowledge")
    with side.step("a range, and HEAD") as values:
        same_file(side, values, url(front, "large.bin"), "-r", "1000-2999")
        values.append("200 OK" in fetch(side, "-I", url(front, "proxy/large.bin")))
    with side.step("20 files at once") as values:
        fetch(side, "-Z", *(word for number in range(20) for word in
                            ("-o", side.path(f"{number}.out"), url(front, "proxy/large.bin"))))
        values.append({digest(side.path(f"{number}.out")) for number in range(20)})
    with side.step("h2load, 10 streams on each of 4 connections") as values:
        report = side.output(["h2load", "-n", 4000, "-c", 4, "-m", 10, url(h2, "small.html")], 60)
        values.append(re.search(r"requests: .*", report)[0])
    with side.step("ab"):
        side.rate("requests/s, static", requests_per_s(side, url(front, "small.html")), "/s")
        side.rate("requests/s, proxy_pass",
                  requests_per_s(side, url(front, "proxy/small.html")), "/s")


# ---- php-fpm ----------------------------------------------------------------------------

PHP = """<?php
if ($_SERVER['REQUEST_METHOD'] == 'POST') {
  $body = file_get_contents('php://input');
  echo strlen($body), ' ', hash('sha256', $body);
} elseif (isset($_GET['size'])) {
  echo str_repeat('0123456789abcdef', $_GET['size'] / 16);
} else {
  echo 'hello from ', PHP_SAPI;
}
"""


def php_fpm(side: Side):
    binary = next(pathlib.Path("/usr/sbin").glob("php-fpm[0-9]*"))
    side.write("www/index.php", PHP)
    upload = side.random_file("upload", 3 << 20)
    tcp, web = free_port(), free_port()
    unix = side.path("php.sock")
    pools = "".join(f"""[{name}]
listen = {address}
pm = static
pm.max_children = 3
{"user = root" if os.geteuid() == 0 else ""}
""" for name, address in (("tcp", f"{HOME}:{tcp}"), ("unix", unix)))
    conf = side.write("fpm.conf", f"[global]\nerror_log = {side.path('fpm.log')}\n{pools}")
    side.serve([binary, "-F", "-R", "-n", "-y", conf], tcp, unix)
    locations = "".join(f"""location /{name}/ {{
        include /etc/nginx/fastcgi_params;
        fastcgi_param SCRIPT_FILENAME {side.path('www')}/index.php;
        fastcgi_pass {address}; }}
        """ for name, address in (("tcp", f"{HOME}:{tcp}"), ("unix", f"unix:{unix}")))
    nginx(side, f"server {{ listen {HOME}:{web}; {locations} }}", web)
    for name in ("tcp", "unix"):
        with side.step(f"GET, fastcgi over {name}") as values:
            values.append(fetch(side, url(web, f"{name}/")))
        with side.step(f"4 MiB answer, fastcgi over {name}") as values:
            same_file(side, values, url(web, f"{name}/?size={4 << 20}"))
        with side.step(f"POST of 3 MiB, fastcgi over {name}") as values:
            values.append(fetch(side, "--data-binary", f"@{upload}", url(web, f"{name}/")))
        with side.step(f"ab, fastcgi over {name}"):
            side.rate(f"requests/s over {name}", requests_per_s(
                side, url(web, f"{name}/"), count=5000, connections=8), "/s")


# ---- apache -----------------------------------------------------------------------------

APACHE = """\
ServerRoot {directory}
ServerName localhost
PidFile {directory}/apache.pid
DefaultRuntimeDir {directory}
ErrorLog {directory}/apache.log
Listen {home}:{port}
LoadModule mpm_{mpm}_module /usr/lib/apache2/modules/mod_mpm_{mpm}.so
{modules}
{user}
DocumentRoot {directory}/www
KeepAliveTimeout 5
MaxKeepAliveRequests 0
ScriptAlias /cgi/ {directory}/cgi/
{cgisock}
ProxyPass /proxy/ http://{home}:{behind}/
<Directory {directory}>
  Require all granted
  Options +ExecCGI
</Directory>
StartServers 2
"""
CGI = """#!/bin/sh
echo "Content-Type: text/plain"
echo
echo "script for $REQUEST_METHOD"
[ "$REQUEST_METHOD" = POST ] && exec sha256sum
exec head -c 300000 /dev/zero
"""


def apache(side: Side, mpm):
    documents(side)
    side.write("cgi/script", CGI, 0o755)
    upload = side.random_file("upload", 1 << 20)
    port, behind = free_port(), free_port()
    backend(side, behind)
    cgi = "cgid" if mpm == "event" else "cgi"
    modules = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
                        for name in ("authz_core", "alias", "proxy", "proxy_http", cgi))
    user = "" if os.geteuid() else "User www-data\nGroup www-data"
    conf = side.write("apache.conf", APACHE.format(
        directory=side.directory, home=HOME, port=port, behind=behind, mpm=mpm, modules=modules,
        user=user, cgisock=f"ScriptSock {side.path('cgisock')}" if mpm == "event" else ""))
    side.serve(["apache2", "-D", "FOREGROUND", "-d", side.directory, "-f", conf], port)
    for path in ("small.html", "large.bin"):
        with side.step(f"{path}, static") as values:
            same_file(side, values, url(port, path))
        with side.step(f"{path}, mod_proxy") as values:
            same_file(side, values, url(port, "proxy/" + path))
    with side.step(f"GET, mod_{cgi}") as values:
        same_file(side, values, url(port, "cgi/script"))
    with side.step(f"POST, mod_{cgi}") as values:
        values.append(fetch(side, "--data-binary", f"@{upload}", url(port, "cgi/script")))
    with side.step("ab"):
        side.rate("requests/s", requests_per_s(side, url(port, "small.html")), "/s")
    with side.step("ab, a connection for each request"):
        side.output(["ab", "-q", "-n", 2000, "-c", 8, url(port, "small.html")], 60)
    with side.step("graceful restart under load"):
        with Loader(side, url(port, "small.html")) as load:
            for _ in range(3):
                os.kill(int(open(side.path("apache.pid")).read()), signal.SIGUSR1)
                load.has_answers(30)
        load.check()


# ---- lighttpd ---------------------------------------------------------------------------

def lighttpd(side: Side):
    documents(side)
    side.write("www/cgi/script", CGI, 0o755)
    upload = side.random_file("upload", 1 << 20)
    port, behind = free_port(), free_port()
    backend(side, behind)
    conf = side.write("lighttpd.conf", f"""
server.modules = ("mod_cgi", "mod_proxy")
server.document-root = "{side.path('www')}"
server.bind = "{HOME}"
server.port = {port}
server.pid-file = "{side.path('lighttpd.pid')}"
server.errorlog = "{side.path('lighttpd.log')}"
server.upload-dirs = ( "{side.directory}" )
mimetype.assign = ( ".html" => "text/html", "" => "application/octet-stream" )
$HTTP["url"] =~ "^/cgi/" {{ cgi.assign = ( "" => "" ) }}
$HTTP["url"] =~ "^/proxy/" {{
  proxy.server = ( "" => ( ( "host" => "{HOME}", "port" => {behind} ) ) )
  proxy.header = ( "map-urlpath" => ( "/proxy/" => "/" ) )
}}
""")
    side.serve(["lighttpd", "-D", "-f", conf], port)
    for path in ("small.html", "large.bin"):
        with side.step(f"{path}, static") as values:
            same_file(side, values, url(port, path))
        with side.step(f"{path}, mod_proxy") as values:
            same_file(side, values, url(port, "proxy/" + path))
    with side.step("GET, mod_cgi") as values:
        same_file(side, values, url(port, "cgi/script"))
    with side.step("POST, mod_cgi") as values:
        values.append(fetch(side, "--data-binary", f"@{upload}", url(port, "cgi/script")))
    with side.step("ab"):
        side.rate("requests/s", requests_per_s(side, url(port, "small.html")), "/s")


# ---- haproxy ----------------------------------------------------------------------------

def haproxy(side: Side):
    documents(side)
    behind, tcp, http, plain = (free_port() for _ in range(4))
    unix, admin = side.path("front.sock"), side.path("admin.sock")
    backend(side, behind)
    conf = side.write("haproxy.cfg", f"""
global
  stats socket {admin} mode 600 level admin expose-fd listeners
  nbthread 2
  hard-stop-after 10s
defaults
  timeout connect 5s
  timeout client 15s
  timeout server 15s
frontend tcp
  mode tcp
  bind {HOME}:{tcp}
  default_backend tcp
backend tcp
  mode tcp
  server one {HOME}:{behind}
frontend http
  mode http
  bind {HOME}:{http}
  bind unix@{unix}
  default_backend http
backend http
  mode http
  server one {HOME}:{behind} check inter 300ms
frontend nosplice
  mode tcp
  bind {HOME}:{plain}
  use_backend splicing
backend splicing
  mode tcp
  option splice-request
  option splice-response
  server one {HOME}:{behind}
""")
    check_conf = ["haproxy", "-c", "-f", conf]
    side.output(check_conf)
    running = side.serve(["haproxy", "-db", "-f", conf], tcp, http, plain, unix)
    where = {"TCP": (url(tcp), ()), "HTTP": (url(http), ()), "spliced TCP": (url(plain), ()),
             "unix": ("http://localhost/", ("--unix-socket", unix))}
    for name, (address, options) in where.items():
        for path in ("small.html", "large.bin"):
            with side.step(f"{path}, {name} frontend") as values:
                same_file(side, values, address + path, *options)
    with side.step("ab"):
        side.rate("requests/s, TCP", requests_per_s(side, url(tcp, "small.html")), "/s")
        side.rate("requests/s, HTTP", requests_per_s(side, url(http, "small.html")), "/s")
    for name, options in (("-sf", ()), ("-sf and sockets passed with -x", ("-x", admin))):
        with side.step(f"reload under load, {name}") as values:
            with Loader(side, url(http, "small.html")) as load:
                for _ in range(3):
                    running = reload_haproxy(side, running, conf, options)
                    load.has_answers(20)
            load.check() if options else values.append(load.answers > 0)
    with side.step("after the reloads") as values:
        same_file(side, values, url(tcp, "large.bin"))
        same_file(side, values, "http://localhost/large.bin", "--unix-socket", unix)


def reload_haproxy(side, running, conf, options):
    following = side.start(["haproxy", "-db", "-f", conf, *options, "-sf", running.pid])
    wait_until(lambda: not running.running() or not following.running(),
               "the old haproxy leaves", 20)
    check(following.running(), f"the new haproxy ended: {following.log()[-300:]}")
    return following


PROGRAMS = [
    (("nginx", ("nginx", "curl", "apache2-utils", "nghttp2-client"),
      "static files, proxy_pass, HTTP/2, grpc_pass; curl, ab, h2load", nginx_proxies), {}),
    (("php-fpm", ("php8.2-fpm", "nginx", "curl", "apache2-utils"),
      "behind nginx's fastcgi_pass over TCP and AF_UNIX", php_fpm), {}),
    (("apache2-event", ("apache2", "nginx", "curl", "apache2-utils"),
      "mpm_event: static files, mod_cgid, mod_proxy, graceful restarts under load",
      lambda side: apache(side, "event")), {}),
    (("apache2-prefork", ("apache2", "nginx", "curl", "apache2-utils"),
      "mpm_prefork: static files, mod_cgi, mod_proxy, graceful restarts under load",
      lambda side: apache(side, "prefork")), {}),
    (("lighttpd", ("lighttpd", "nginx", "curl", "apache2-utils"),
      "static files, mod_cgi, mod_proxy", lighttpd), {}),
    (("haproxy", ("haproxy", "nginx", "curl", "apache2-utils"),
      "TCP, HTTP, unix and splicing frontends; reloads with -sf and -x under load", haproxy),
     {"seconds": 180}),
]
