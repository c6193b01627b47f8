"""The servers that are compared, each with its load generator."""

import csv
import os
import pwd
import re
import shutil
from dataclasses import dataclass

from processes import Failure, Unavailable, output_of

NGINX_CONF = """\
{user}
daemon off;
worker_processes {workers};
pid {directory}/nginx.pid;
error_log {directory}/error.log;
# nginx clears its environment: these two keep Sluice loaded in its workers.
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200; }}
  }}
}}
"""

MEMCASLAP_CONF = "key\n64 64 1\nvalue\n64 64 1\ncmd\n0 0.1\n1 0.9\n"


@dataclass
class Load:
    """What one run of a load generator measured."""
    requests_per_s: float
    p50_us: float
    p99_us: float
    errors: str = ""


def find_program(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise Unavailable(f"{name} is not installed")
    return path


def user_to_become(wanted):
    """One name, or none: only root may choose, and who is not root may have no name."""
    return [wanted or pwd.getpwuid(0).pw_name] if os.geteuid() == 0 else []


def patience(seconds):
    return 5 * seconds + 30


def parsed(pattern, output):
    match = re.search(pattern, output)
    if match is None:
        raise Failure(f"cannot read the load generator's output: {output[-200:]!r}")
    return match


class Nginx:
    title = "nginx `return 200`, 1 worker, load by wrk -t1"
    variants = [""]
    wrk_options = []

    @staticmethod
    def workers(variant):
        return 1

    def command(self, variant, directory, port, user):
        user_line = "".join(f"user {name};" for name in user_to_become(user))
        path = os.path.join(directory, "nginx.conf")
        with open(path, "w") as conf:
            conf.write(NGINX_CONF.format(directory=directory, port=port, user=user_line,
                                         workers=self.workers(variant)))
        log = os.path.join(directory, "error.log")
        return [find_program("nginx"), "-p", directory, "-c", path, "-e", log]

    def load(self, launcher, directory, port, connections, seconds, cpu):
        argv = launcher + [find_program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s",
                           "--latency", *self.wrk_options, f"http://127.0.0.1:{port}/"]
        output = output_of(argv, patience(seconds), cpu)
        problems = re.findall(r"(?:Socket errors|Non-2xx).*", output)
        return Load(float(parsed(r"Requests/sec:\s+([\d.]+)", output)[1]),
                    self._latency_us("50", output), self._latency_us("99", output),
                    "; ".join(problems))

    @staticmethod
    def _latency_us(percent, output):
        match = parsed(rf"\s{percent}%\s+([\d.]+)(us|ms|s|m)\s", output)
        return float(match[1]) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}[match[2]]


class NginxShort(Nginx):
    title = "nginx `return 200`, a new connection for each request, load by wrk -t1"
    variants = ["1 worker", "2 workers", "4 workers", "8 workers"]
    wrk_options = ["-H", "Connection: close"]

    @staticmethod
    def workers(variant):
        return int(variant.split()[0])


class Memcached:
    title = "memcached, 9 get : 1 set of 64 B, load by memcaslap -T 1"
    variants = ["-t 1", "-t 4"]

    def command(self, variant, directory, port, user):
        user_options = [f"-u{name}" for name in user_to_become(user)]
        return [find_program("memcached"), *variant.split(), "-l", "127.0.0.1", "-p", str(port),
                *user_options]

    def load(self, launcher, directory, port, connections, seconds, cpu):
        path = os.path.join(directory, "memcaslap.conf")
        with open(path, "w") as conf:
            conf.write(MEMCASLAP_CONF)
        argv = launcher + [find_program("memcaslap"), "-s", f"127.0.0.1:{port}", "-T", "1",
                           "-c", str(connections), "-t", f"{seconds}s", "-S", f"{seconds}s",
                           "-F", path]
        output = output_of(argv, patience(seconds), cpu)
        totals = output[output.rfind("Total Statistics ("):]
        misses = int(parsed(r"get_misses: (\d+)", totals)[1])
        return Load(float(parsed(r"TPS: (\d+)", totals)[1]),
                    self._quantile_us(totals, 0.50), self._quantile_us(totals, 0.99),
                    f"{misses} values were not found" if misses else "")

    @staticmethod
    def _quantile_us(totals, fraction):
        """Interpolated: memcaslap prints how many took 2^(n-1) to 2^n us, four n to a line."""
        shortest = int(parsed(r"Min:\s+(\d+)", totals)[1])
        longest = int(parsed(r"Max:\s+(\d+)", totals)[1])
        counts = [(int(first) + i, int(count))
                  for first, line in re.findall(r"^ +(\d+):((?: +\d+)+)$", totals, re.MULTILINE)
                  for i, count in enumerate(line.split())]
        wanted = fraction * sum(count for _, count in counts)
        for n, count in counts:
            if count > 0 and wanted <= count:
                low, high = max(2 ** (n - 1), shortest), min(2 ** n, longest)
                return low + (high - low) * wanted / count
            wanted -= count
        raise Failure("memcaslap printed no latencies")


class Redis:
    title = "redis GET, load by redis-benchmark"
    variants = [""]

    def command(self, variant, directory, port, user):
        return [find_program("redis-server"), "--port", str(port), "--bind", "127.0.0.1",
                "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", directory]

    def load(self, launcher, directory, port, connections, seconds, cpu):
        def benchmark(test, clients, requests):
            argv = launcher + [find_program("redis-benchmark"), "-h", "127.0.0.1",
                               "-p", str(port), "-t", test, "-c", str(clients),
                               "-n", str(requests), "--csv", "--precision", "3"]
            output = output_of(argv, patience(seconds), cpu)
            table = output[max(output.find('"test"'), 0):].splitlines()
            rows = list(csv.DictReader(table))
            if not rows:
                raise Failure(f"redis-benchmark printed no figures: {output[-200:]!r}")
            return {name: float(value) for name, value in rows[0].items() if name != "test"}

        # It takes a number of requests, not a time: find out how many fit.
        benchmark("set", 1, 1)
        warm_up = benchmark("get", connections, 5000)
        figures = benchmark("get", connections, max(5000, int(warm_up["rps"] * seconds)))
        return Load(figures["rps"], figures["p50_latency_ms"] * 1e3,
                    figures["p99_latency_ms"] * 1e3)


SERVERS = {"nginx": Nginx, "nginx-short": NginxShort, "memcached": Memcached, "redis": Redis}
