#!/usr/bin/env python3
"""--protect=keys between programs: one that writes where it must not ends alone; code that could undo the protection is seen,
and with keys-strict does not become executable; and what `sluice status` and `sluice audit` say of it."""
import json
import signal
import subprocess

from echo import EchoClient, EchoServer, check, program, run, wait_for_traffic, wait_until

WAYS = ("map", "place", "write+map", "change", "hidden", "by number")
NOT_RUN = 126


def use_keys(rig, kind):
    rig.coordinator.kill(signal.SIGTERM)
    rig.options.protect = kind
    rig.start_coordinator()


def breaker(rig, what, server, name="key_breaker"):
    return rig.start([program(rig, name), what, server.port], talks=True)


def ended(process):
    wait_until(lambda: not process.running(), f"{process.name} ends")
    return process.status()


def stray_writes_end_the_writer_alone(rig):
    server = EchoServer(rig)
    other = EchoClient(rig, server.port, connections=2, pause_us=200)
    wait_for_traffic([other])
    for _ in range(20):
        process = breaker(rig, "write", server)
        check(process.line() == "writing", "it begins to write")
        check(ended(process) == -signal.SIGSEGV, f"it ends with {process.status()}")
    wait_for_traffic([other])
    check(rig.status()["resets_total"] == 0, "nothing was written")
    check(other.finish()["deaths"] == 0, "the other's connections have died")
    server.process.kill()


def code_is_seen(rig):
    server = EchoServer(rig)
    process = breaker(rig, "code", server)
    answers = [process.ask(way) for way in WAYS[:1]]
    before = rig.status()["key_instructions"]
    check(before > 0 and rig.status()["keyed"] == 2, f"two processes with keys: {rig.status()}")
    answers += [process.ask(way) for way in WAYS[1:]]
    check(answers == ["0"] * len(WAYS), f"allowed: {answers}")
    # What is written to memory that is executable already is not seen, nor what cannot be read.
    check(rig.status()["key_instructions"] == before + 3, f"{before}, then {rig.status()['key_instructions']}")
    found = json.loads(rig.command("audit", "--json").stdout)
    check(found["keyed"] == 2 and not found["violations"], f"audit: {found}")
    stray = {(entry["file"].rpartition("/")[2], entry["instruction"]) for entry in found["stray"]}
    check(("libc.so.6", "wrpkru") in stray and ("[anonymous]", "wrpkru") in stray, f"audit: {stray}")
    check(not any("libsluice" in file for file, _ in stray), f"its own are not foreign: {stray}")
    process.finish()
    own = breaker(rig, "code", server, "key_breaker_by_itself")
    own.ask("map")
    found = json.loads(rig.command("audit", "--json").stdout)
    check(any(entry["file"].endswith("key_breaker_by_itself") for entry in found["stray"]), f"audit: {found['stray']}")
    own.finish()
    server.process.kill()


def code_is_refused(rig):
    server = EchoServer(rig)
    process = breaker(rig, "code", server)
    for way in WAYS:
        check(process.ask(way) == "EACCES", f"{way} is refused")
    check(process.ask("confirm") == "0", "what is there already is not")
    process.finish()
    own = breaker(rig, "code", server, "key_breaker_by_itself")
    check(ended(own) == NOT_RUN, f"it ends with {own.status()}")
    check("key_breaker_by_itself" in own.log() or "the program+0x" in own.log(), f"it says why: {own.log()}")
    server.process.kill()


def sluice_run_takes_it(rig):
    """For the coordinator that it starts."""
    directory = f"{rig.directory}/of-its-own"
    command = [rig.build.sluice, "run", f"--dir={directory}", "--protect=keys", "--require", "--", rig.build.sluice, "status", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=20, env=rig.environment(preload=False))
    check(answer.returncode == 0 and json.loads(answer.stdout)["protect"] == "keys", f"{answer.stdout[-300:]} {answer.stderr}")


def one_program_may_go_without(rig):
    """SLUICE_PROTECT is the program's own choice."""
    server = EchoServer(rig)
    client = subprocess.Popen([program(rig, "key_breaker"), "code", server.port], stdin=subprocess.PIPE,
                              env=rig.environment() | {"SLUICE_PROTECT": "regions"})
    wait_until(lambda: rig.status()["clients"] == 2, "it is a client")
    check(rig.status()["keyed"] == 1, "it has no key")
    client.stdin.close()
    check(client.wait(10) == 0, "it ends well")
    server.process.kill()


def keys(rig):
    use_keys(rig, "keys")
    if rig.status()["protect"] != "keys":
        print("skipped: no protection keys here")
        raise SystemExit(77)
    stray_writes_end_the_writer_alone(rig)
    code_is_seen(rig)
    one_program_may_go_without(rig)
    sluice_run_takes_it(rig)
    use_keys(rig, "keys-strict")
    code_is_refused(rig)
    rig.check_nothing_left()


run(keys, seconds=100)
