"""Message brokers, and the Erlang run-time that one of them is made of."""
import os
import pathlib
import re
import signal
import socket
import time

from side import Failure, Side, check, digest, free_port, own, wait_until

HOME = "127.0.0.1"


# ---- mosquitto --------------------------------------------------------------------------

def mosquitto(side: Side):
    port = free_port()
    unix = side.path("mosquitto.sock")
    conf = side.write("mosquitto.conf", f"listener {port} {HOME}\nlistener 0 {unix}\n"
                      f"allow_anonymous true\n{'user root' if os.geteuid() == 0 else ''}\n")
    server = side.serve(["mosquitto", "-c", conf], port, unix)
    large = side.random_file("large", 4 << 20)
    where = {"TCP": ["-h", HOME, "-p", port], "AF_UNIX": ["--unix", unix]}
    for over, to in where.items():
        for qos in (0, 1, 2):
            with side.step(f"500 messages, QoS {qos}, over {over}") as values:
                subscriber = subscribe(side, server, to, f"topic{qos}", qos, 500)
                side.output(["mosquitto_pub", *to, "-t", f"topic{qos}", "-q", qos, "-l"],
                            data="".join(f"message {n}\n" for n in range(500)).encode())
                values.append(digest(subscriber.finish(20) or subscriber.log()))
        with side.step(f"a message of 4 MiB over {over}") as values:
            subscriber = subscribe(side, server, to, "large", 1, 1)
            side.output(["mosquitto_pub", *to, "-t", "large", "-q", 1, "-f", large])
            subscriber.finish(20)
            with open(subscriber.log_path, "rb") as file:
                values.append(digest(file.read()[:4 << 20]))
    with side.step("a last will after kill -9") as values:
        watcher = subscribe(side, server, where["TCP"], "will", 1, 1)
        doomed = side.start(["mosquitto_sub", *where["TCP"], "-t", "none", "-i", "doomed",
                             "--will-topic", "will", "--will-payload", "gone"])
        wait_until(lambda: "as doomed" in server.log(), "the client has connected")
        doomed.kill(signal.SIGKILL)
        watcher.finish(20)
        values.append(watcher.log())


def subscribe(side, server, to, topic, qos, count):
    """Once the broker knows of it."""
    name = f"sub-{topic}-{len(server.log())}"
    process = side.start(["mosquitto_sub", *to, "-t", topic, "-q", qos, "-C", count, "-i", name])
    wait_until(lambda: f"as {name}" in server.log(), "the subscriber has connected")
    time.sleep(0.2)
    return process


# ---- Erlang -----------------------------------------------------------------------------

TALK = r"""
#!/usr/bin/env escript
%%! -kernel inet_dist_use_interface {127,0,0,1}
main([Way]) ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127,0,0,1}},
                                        {packet, packet(Way)}, {backlog, 64}]),
    {ok, Port} = inet:port(Listener),
    spawn_link(fun() -> accept(Listener) end),
    Self = self(),
    [spawn_link(fun() -> Self ! {done, client(Port, Way, N)} end) || N <- lists:seq(1, 20)],
    Sums = [receive {done, Sum} -> Sum after 20000 -> exit(timeout) end || _ <- lists:seq(1, 20)],
    io:format("~p~n", [erlang:phash2(lists:sort(Sums))]).
packet("packets") -> 4;
packet(_) -> raw.
accept(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Pid = spawn(fun() -> receive go -> echo(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Pid),
    Pid ! go,
    accept(Listener).
echo(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Data} -> ok = gen_tcp:send(Socket, Data), echo(Socket);
        {error, closed} -> ok
    end.
client(Port, Way, N) ->
    Active = Way =:= "active",
    {ok, S} = gen_tcp:connect({127,0,0,1}, Port, [binary, {active, Active},
                                                  {packet, packet(Way)}]),
    Sum = lists:foldl(fun(I, Acc) ->
        Data = binary:copy(<<N, I>>, I * 97),
        ok = gen_tcp:send(S, Data),
        Data = collect(S, Active, Way, byte_size(Data), <<>>),
        erlang:phash2({Acc, Data}) end, 0, lists:seq(1, 100)),
    gen_tcp:close(S),
    {N, Sum}.
collect(_, _, _, Size, Got) when byte_size(Got) =:= Size -> Got;
collect(S, true, Way, Size, Got) ->
    receive {tcp, S, Data} -> collect(S, true, Way, Size, <<Got/binary, Data/binary>>)
    after 10000 -> exit(timeout) end;
collect(S, false, Way, Size, Got) ->
    {ok, Data} = gen_tcp:recv(S, 0, 10000),
    collect(S, false, Way, Size, <<Got/binary, Data/binary>>).
"""


def erlang(side: Side):
    script = side.write("talk.escript", TALK.lstrip(), 0o755)
    for way in ("passive", "active", "packets"):
        with side.step(f"20 clients, gen_tcp, {way}") as values:
            values.append(side.output(["escript", script, way], 60))
    with side.step("a port program over pipes") as values:
        values.append(side.output(["erl", "-noshell", "-eval",
                                   'io:format("~s", [os:cmd("seq 1 20000 | sha256sum")]), halt().'],
                                  60))
    with side.step("two nodes") as values:
        values.append(two_nodes(side))


def two_nodes(side):
    epmd = free_port()
    env = {"ERL_EPMD_PORT": epmd, "ERL_EPMD_ADDRESS": HOME, "HOME": side.directory}
    common = ["erl", "-noshell", "-setcookie", "sluice"]
    side.serve(["epmd"], epmd, environment=env)
    side.start([*common, "-name", f"one@{HOME}"], environment=env)
    ask = (f"Node = 'one@{HOME}', "
           "W = fun W(0) -> exit(no_node); W(N) -> case net_adm:ping(Node) of pong -> ok; "
           "pang -> timer:sleep(200), W(N - 1) end end, W(50), "
           "Data = binary:copy(<<1,2,3,4>>, 1000000), "
           "Back = [rpc:call(Node, erlang, md5, [Data]) || _ <- lists:seq(1, 20)], "
           'io:format("~p", [lists:usort(Back)]), rpc:cast(Node, init, stop, []), '
           "timer:sleep(500), halt().")
    return side.output([*common, "-name", f"two@{HOME}", "-eval", ask], 60,
                       environment={name: str(value) for name, value in env.items()})


# ---- rabbitmq ---------------------------------------------------------------------------

def rabbitmq(side: Side):
    amqp, epmd, dist = free_port(), free_port(), free_port()
    lib = next(pathlib.Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*"))
    home = side.path("rabbit")
    os.mkdir(home)
    env = {"HOME": home, "RABBITMQ_MNESIA_BASE": home, "RABBITMQ_LOG_BASE": home,
           "RABBITMQ_NODENAME": f"rabbit@{HOME}", "RABBITMQ_USE_LONGNAME": "true",
           "RABBITMQ_NODE_IP_ADDRESS": HOME, "RABBITMQ_NODE_PORT": amqp,
           "RABBITMQ_DIST_PORT": dist, "ERL_EPMD_PORT": epmd, "ERL_EPMD_ADDRESS": HOME,
           "RABBITMQ_ENABLED_PLUGINS_FILE": side.write("rabbit/plugins", "[]."),
           "RABBITMQ_CONF_ENV_FILE": side.write("rabbit/env", ""),
           "RABBITMQ_CONFIG_FILE": side.path("rabbit/none"),
           "RABBITMQ_PID_FILE": side.path("rabbit/pid")}
    env = {name: str(value) for name, value in env.items()}
    server = side.serve([lib / "sbin" / "rabbitmq-server"], amqp, seconds=90, environment=env)

    def control(*words):
        return side.output([lib / "sbin" / "rabbitmqctl", "-q", *words], 60, environment=env)
    with side.step("rabbitmqctl") as values:
        control("await_startup")
        values.append(control("list_vhosts"))
    where = ["-u", f"amqp://guest:guest@{HOME}:{amqp}"]
    with side.step("a queue, and 200 messages through it") as values:
        side.output(["amqp-declare-queue", *where, "-q", "work"])
        side.output(["amqp-publish", *where, "-r", "work", "-l"],
                    data="".join(f"message {n}\n" for n in range(200)).encode())
        values.append(digest(side.output(["amqp-consume", *where, "-q", "work", "-c", 200,
                                          "cat"])))
    large = side.random_file("large", 2 << 20)
    with side.step("a message of 2 MiB") as values:
        with open(large, "rb") as file:
            side.output(["amqp-publish", *where, "-r", "work"], data=file.read())
        values.append(side.output(["amqp-consume", *where, "-q", "work", "-c", 1, "sha256sum"]))
    with side.step("shutdown"):
        control("stop")
        wait_until(lambda: not server.running(), "rabbitmq ends", 40)


PROGRAMS = [
    (("mosquitto", ("mosquitto", "mosquitto-clients"),
      "messages of each QoS over TCP and AF_UNIX, a last will", mosquitto), {}),
    (("erlang", ("erlang-base", "rabbitmq-server"),
      "gen_tcp in three modes, a port program, two distributed nodes", erlang), {"seconds": 200}),
    (("rabbitmq", ("rabbitmq-server", "amqp-tools"),
      "rabbitmqctl, queues, messages through amqp-tools", rabbitmq), {"seconds": 300}),
]
