"""Language run-times with networking of their own."""
import os
import signal

from cases_servers import (Loader, fetch, requests_per_s, same_file, url,
                           wrk_requests_per_s)
from side import Failure, Side, check, digest, free_port, wait_until

HOME = "127.0.0.1"

# ---- node -------------------------------------------------------------------------------

NODE_HTTP = """
const http = require('http'), crypto = require('crypto');
const server = http.createServer((request, response) => {
  const sum = crypto.createHash('sha256');
  request.on('data', chunk => sum.update(chunk));
  request.on('end', () => response.end(sum.digest('hex') + 'x'.repeat(Number(request.url.slice(1)))));
}).listen(0, '127.0.0.1', async () => {
  const port = server.address().port;
  const ask = (body, size, agent) => new Promise((resolve, reject) => {
    const request = http.request({port, host: '127.0.0.1', path: '/' + size, method: 'POST', agent},
      response => { let all = ''; response.on('data', chunk => all += chunk);
                    response.on('end', () => resolve(all)); });
    request.on('error', reject);
    request.end(body);
  });
  const sum = crypto.createHash('sha256');
  for (const agent of [new http.Agent({keepAlive: true}), new http.Agent()]) {
    for (let n = 0; n < 20; n++)
      (await Promise.all([1, 2, 3, 4].map(k => ask('b'.repeat(n * n * 997 * k), n * 1000, agent))))
        .forEach(answer => sum.update(answer));
    agent.destroy();
  }
  console.log(sum.digest('hex'));
  server.close();
});
"""

NODE_NET = """
const net = require('net'), crypto = require('crypto');
const where = process.argv[2] === 'unix' ? {path: process.argv[3]} : {port: 0, host: '127.0.0.1'};
const server = net.createServer({allowHalfOpen: true}, socket => socket.pipe(socket));
server.listen(where, () => {
  const address = server.address();
  const to = typeof address === 'string' ? {path: address} : {port: address.port, host: '127.0.0.1'};
  let left = 8;
  for (let n = 0; n < 8; n++) {
    const data = crypto.createHash('sha256').update('' + n).digest('hex').repeat(30000);
    const socket = net.connect({...to, allowHalfOpen: true}, () => socket.end(data));
    let got = '';
    socket.on('data', chunk => got += chunk);
    socket.on('end', () => {
      console.log(got === data ? 'good' : 'bad ' + got.length);
      if (--left === 0) server.close();
    });
  }
});
"""

NODE_CHILDREN = """
const child = require('child_process'), crypto = require('crypto');
if (process.argv[2] === 'talk') {
  process.on('message', message => { process.send({echo: message}); });
} else {
  const sum = crypto.createHash('sha256');
  const piped = child.spawn('sha256sum', [], {stdio: ['pipe', 'pipe', 'inherit']});
  piped.stdout.on('data', data => console.log('spawn ' + data));
  piped.stdin.end('y'.repeat(3000000));
  console.log('sync ' + child.execFileSync('sh', ['-c', 'wc -c'], {input: 'z'.repeat(1000000)}));
  console.log('shell ' + child.execSync('seq 1 50000 | tail -n 1'));
  const talker = child.fork(__filename, ['talk']);
  let got = 0;
  talker.on('message', () => { if (++got === 300) talker.disconnect(); });
  talker.on('exit', code => console.log('fork ' + got + ' ' + code));
  for (let n = 0; n < 300; n++) talker.send({n, text: 'm'.repeat(n * 50)});
}
"""

NODE_CLUSTER = """
const cluster = require('cluster'), http = require('http'), net = require('net');
const policy = process.argv[2], port = Number(process.argv[3]);
cluster.schedulingPolicy = policy === 'round-robin' ? cluster.SCHED_RR : cluster.SCHED_NONE;
if (cluster.isPrimary) {
  for (let n = 0; n < 3; n++) cluster.fork();
  cluster.on('exit', worker => { if (!worker.exitedAfterDisconnect) cluster.fork(); });
} else {
  http.createServer((request, response) => {
    if (request.url === '/die') { response.end('dying'); setImmediate(() => process.exit(1)); }
    else if (request.url === '/large') response.end('w'.repeat(4000000));
    else response.end('worker');
  }).listen(port, '127.0.0.1');
}
"""


def node(side: Side):
    for name, text, arguments in (
            ("http", NODE_HTTP, ()), ("net over TCP", NODE_NET, ("tcp",)),
            ("net over AF_UNIX", NODE_NET, ("unix", side.path("node.sock"))),
            ("child_process", NODE_CHILDREN, ())):
        script = side.write(f"{name.replace(' ', '-')}.js", text)
        with side.step(name) as values:
            values += sorted(side.output(["node", script, *arguments], 60).split("\n"))
    script = side.write("cluster.js", NODE_CLUSTER)
    for policy in ("round-robin", "shared listener"):
        port = free_port()
        server = side.serve(["node", script, policy, port], port)
        with side.step(f"cluster, {policy}: small and large answers") as values:
            for _ in range(10):
                values.append(fetch(side, url(port)))
            same_file(side, values, url(port, "large"))
        with side.step(f"cluster, {policy}: workers die and come back"):
            for _ in range(3):
                fetch(side, "--retry", 5, "--retry-all-errors", "--retry-delay", 1,
                      url(port, "die"))
            fetch(side, "--retry", 5, "--retry-all-errors", "--retry-delay", 1, url(port))
        with side.step(f"cluster, {policy}: ab"):
            side.rate(f"requests/s, cluster, {policy}",
                      requests_per_s(side, url(port), count=8000), "/s")
        side.stop(server)


# ---- gunicorn ---------------------------------------------------------------------------

WSGI = """
import hashlib, time
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/large":
        answer = b"w" * 4000000
    elif environ["REQUEST_METHOD"] == "POST":
        answer = hashlib.sha256(environ["wsgi.input"].read()).hexdigest().encode()
    else:
        answer = b"hello"
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
"""
ASGI = """
import hashlib, sys
import uvloop  # the loop that uvicorn takes if it is there
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    sum = hashlib.sha256()
    while True:
        message = await receive()
        sum.update(message.get("body", b""))
        if not message.get("more_body"):
            break
    answer = (b"w" * 4000000 if scope["path"] == "/large" else
              sum.hexdigest().encode() if scope["method"] == "POST" else b"hello")
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", str(len(answer)).encode())]})
    await send({"type": "http.response.body", "body": answer})
"""
UVLOOP = """
import asyncio, hashlib, subprocess, sys, uvloop
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def client(port, n, path=None):
    where = asyncio.open_unix_connection(path) if path else asyncio.open_connection("127.0.0.1", port)
    reader, writer = await where
    data = hashlib.sha256(str(n).encode()).digest() * (1000 * n + 1)
    writer.write(data)
    writer.write_eof()
    got = await reader.read()
    writer.close()
    return got == data
async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(sum(await asyncio.gather(*(client(port, n) for n in range(50)))))
    unix = await asyncio.start_unix_server(echo, sys.argv[1])
    print(sum(await asyncio.gather(*(client(0, n, sys.argv[1]) for n in range(50)))))
    process = await asyncio.create_subprocess_exec("sha256sum", stdin=subprocess.PIPE,
                                                   stdout=subprocess.PIPE)
    print((await process.communicate(b"x" * 3000000))[0])
    server.close()
    unix.close()
uvloop.install()
asyncio.run(main())
"""


def gunicorn(side: Side):
    side.write("wsgi.py", WSGI)
    side.write("asgi.py", ASGI)
    upload = side.random_file("upload", 3 << 20)
    for kind, app, more in (("sync", "wsgi:app", ()), ("gthread", "wsgi:app", ("--threads", 4)),
                            ("uvicorn.workers.UvicornWorker", "asgi:app", ())):
        port, unix = free_port(), side.path(f"{kind}.sock")
        server = side.serve(["/usr/bin/gunicorn", "--chdir", side.directory, "-k", kind, "-w", 3,
                             *more, "-b", f"{HOME}:{port}", "-b", f"unix:{unix}",
                             "--worker-tmp-dir", side.directory, "--pid", side.path(f"{kind}.pid"),
                             app], port, unix)
        for over, options in (("TCP", (url(port),)),
                              ("AF_UNIX", ("--unix-socket", unix, "http://localhost/"))):
            with side.step(f"{kind} over {over}") as values:
                *before, base = options
                values.append(fetch(side, *before, base))
                same_file(side, values, base + "large", *before)
                values.append(fetch(side, *before, "--data-binary", f"@{upload}", base))
        with side.step(f"{kind}: workers are replaced under load"):
            with Loader(side, url(port)) as load:
                for _ in range(3):
                    server.send(signal.SIGHUP)
                    load.has_answers(20)
            # That no request fails meanwhile is not what gunicorn promises.
            wait_until(lambda: answers(side, port), "an answer after the reloads")
        with side.step(f"{kind}: wrk"):
            side.rate(f"requests/s, {kind.split('.')[-1]}", wrk_requests_per_s(side, url(port)),
                      "/s")
        side.stop(server)


def answers(side, port):
    try:
        return fetch(side, url(port)) == "hello"
    except Failure:
        return False


def uvloop(side: Side):
    script = side.write("echo.py", UVLOOP)
    with side.step("TCP, AF_UNIX and a child process") as values:
        values.append(side.output(["/usr/bin/python3", script, side.path("uv.sock")], 60))


# ---- without libc -----------------------------------------------------------------------

GO = """
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
)

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%x", sha256.Sum256(body))
	})
	for _, network := range []string{"tcp", "unix"} {
		address := "localhost:0"
		if network == "unix" {
			address = os.Args[1]
		}
		listener, err := net.Listen(network, address)
		must(err)
		go http.Serve(listener, nil)
		client := http.Client{Transport: &http.Transport{Dial: func(_, _ string) (net.Conn, error) {
			return net.Dial(network, listener.Addr().String())
		}}}
		var group sync.WaitGroup
		sums := make([]string, 40)
		for n := range sums {
			group.Add(1)
			go func(n int) {
				defer group.Done()
				response, err := client.Post("http://localhost/", "x", bytes.NewReader(make([]byte, n*50000)))
				must(err)
				body, err := io.ReadAll(response.Body)
				must(err)
				response.Body.Close()
				sums[n] = string(body)
			}(n)
		}
		group.Wait()
		fmt.Printf("%s %x\\n", network, sha256.Sum256([]byte(fmt.Sprint(sums))))
	}
	command := exec.Command("sha256sum")
	command.Stdin = bytes.NewReader(make([]byte, 2000000))
	out, err := command.Output()
	must(err)
	fmt.Print(string(out))
}
"""

STATIC = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
static char out[1 << 20], in[1 << 20];
int main(void) {
  int l = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof a;
  if (bind(l, (void*)&a, n) || listen(l, 5) || getsockname(l, (void*)&a, &n)) return 1;
  if (fork() == 0) {
    int s = accept(l, 0, 0);
    for (ssize_t k; (k = read(s, in, 4096)) > 0;) if (write(s, in, k) != k) _exit(1);
    _exit(0);
  }
  for (size_t i = 0; i < sizeof out; i++) out[i] = i * 7 + i / 4096;
  int s = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(s, (void*)&a, n)) return 2;
  if (fork() == 0) {
    for (size_t i = 0; i < sizeof out;) i += write(s, out + i, sizeof out - i);
    shutdown(s, SHUT_WR);
    _exit(0);
  }
  size_t got = 0;
  for (ssize_t k; (k = read(s, in + got, sizeof in - got)) > 0;) got += k;
  while (wait(0) > 0);
  printf("%zu bytes, %s\n", got, memcmp(in, out, sizeof in) ? "different" : "the same");
  return 0;
}
"""


def go(side: Side):
    side.write("talk/main.go", GO)
    side.write("talk/go.mod", "module talk\n\ngo 1.19\n")
    for name, cgo in (("with cgo", 1), ("static", 0)):
        binary = side.path(f"go-{cgo}")
        side.output(["go", "build", "-o", binary, "."], 300, preload=False,
                    directory=side.path("talk"),
                    environment={"CGO_ENABLED": str(cgo), "HOME": side.directory,
                                 "GOCACHE": side.path("gocache"), "GOFLAGS": "-mod=mod",
                                 "GOPROXY": "off"})
        with side.step(f"net/http, TCP and AF_UNIX, and a child, {name}") as values:
            values.append(side.output([binary, side.path(f"go-{cgo}.sock")], 60))
    with side.step("built by a preloaded go") as values:
        values.append(side.output(
            ["go", "vet", "."], 300, directory=side.path("talk"),
            environment={"HOME": side.directory, "GOCACHE": side.path("gocache"),
                         "GOPROXY": "off"}))


def static(side: Side):
    source, binary = side.write("talk.c", STATIC.lstrip()), side.path("talk")
    side.output(["gcc", "-static", "-O1", "-o", binary, source], 60, preload=False)
    with side.step("a static C program talks to itself") as values:
        values.append(side.output([binary]))
    busybox = "/bin/busybox"
    large = digest(side.random_file("www/large.bin", 4 << 20))
    port = free_port()
    side.serve([busybox, "httpd", "-f", "-p", f"{HOME}:{port}", "-h", side.path("www")], port)
    with side.step("busybox httpd, curl with the shim") as values:
        same_file(side, values, url(port, "large.bin"))
        check(values == [large], "another file")
    with side.step("busybox httpd and wget") as values:
        target = side.path("fetched")
        side.output([busybox, "wget", "-q", "-O", target, url(port, "large.bin")])
        values.append(digest(target))
    with side.step("busybox nc with a child that has the shim") as values:
        port = free_port()
        side.serve([busybox, "nc", "-l", "-p", port, "-e", "/bin/echo", "hello"], port)
        values.append(side.output(["sh", "-c", f"{busybox} nc {HOME} {port} </dev/null"]))


PROGRAMS = [
    (("node", ("nodejs", "curl", "apache2-utils"),
      "http, net, child_process, cluster with both policies, dying workers", node),
     {"seconds": 200}),
    (("gunicorn", ("gunicorn", "python3-uvicorn", "python3-uvloop", "curl", "wrk"),
      "sync, gthread and uvicorn (uvloop) workers over TCP and AF_UNIX; reloads under load",
      gunicorn), {"seconds": 200}),
    (("uvloop", ("python3-uvloop",), "streams over TCP and AF_UNIX, a child process", uvloop), {}),
    (("go", ("golang-go",), "net/http over TCP and AF_UNIX, exec; with cgo and static", go),
     {"seconds": 400, "on_kernel": "makes system calls without libc"}),
    (("static", ("busybox-static", "gcc", "libc6-dev", "curl"),
      "a static C program; busybox httpd, wget, nc", static),
     {"on_kernel": "statically linked"}),
]
