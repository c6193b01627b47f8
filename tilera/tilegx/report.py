"""What was compiled, what was checked, and what came of it, as a table and as JSON."""
import json
import subprocess

import objects
import rules


def tile(part, function):
    return f"sluice::tilera::{part}<sluice::tilera::TileGxNoc>::{function}"


# Functions of units/, and what is to hold for each. r0 is the network; arguments come in the registers after it.
CHECKS = [
    ("send_three_words", "a header and three words are four writes to udn0, in order, with nothing between them",
     lambda f: rules.sends(f, 3, ["r1", "r2", "r3", "r4"])),
    ("send_seven_words", "a packet of seven words from memory is eight writes, with nothing between them",
     lambda f: rules.sends(f, 7)),
    ("receive_request", "a word of queue 0 is a read of udn0", lambda f: rules.receives(f, 0, 1)),
    ("receive_reply", "a word of queue 1 is a read of udn1", lambda f: rules.receives(f, 1, 1)),
    ("receive_doorbell", "a word of queue 2 is a read of udn2", lambda f: rules.receives(f, 2, 1)),
    ("receive_control", "a word of queue 3 is a read of udn3", lambda f: rules.receives(f, 3, 1)),
    ("look_at_queues", "a look at all queues is a read of UDN_DATA_AVAIL",
     lambda f: rules.reads_special_register(f, "UDN_DATA_AVAIL") + rules.makes_no_call(f)),
    ("count_requests", "a queue's words are counted by UDN_DEMUX_COUNT_0",
     lambda f: rules.reads_special_register(f, "UDN_DEMUX_COUNT_0") + rules.makes_no_call(f)),
    ("read_cycle", "time is a read of CYCLE", lambda f: rules.reads_special_register(f, "CYCLE") + rules.makes_no_call(f)),
    ("store_and_tell", "mf stands between a store and the doorbell", rules.fences_before_sends),
    ("hear_and_load", "what a doorbell tells of is loaded after it", rules.loads_after_receive),
    ("load_receive_load", "loads stay on their sides of a word received", rules.loads_before_and_after_receive),
    ("store_send_store", "stores stay on their sides of a packet", rules.stores_before_and_after_packet),
    (tile("Doorbells", "ring(unsigned int)"), "mf stands between what somebody published and the doorbell", rules.fences_lead_to_sends),
    (tile("Doorbells", "await_ring()"), "doorbells come from queue 2 only", lambda f: rules.takes_only(f, 2)),
    (tile("CoordinatorTile", "ring(unsigned int)"), "the same mf where the core rings", rules.fences_lead_to_sends),
    (tile("CoordinatorTile", "notify(unsigned int, sluice::shm::Message const&)"), "and where it tells a client something",
     rules.fences_lead_to_sends),
    (tile("CoordinatorTile", "serve()"), "requests come from queue 0 only, which is polled",
     lambda f: rules.takes_only(f, 0) + rules.reads_special_register(f, "UDN_DATA_AVAIL")),
    (tile("ClientTile", "receive()"), "replies come from queue 1 only", lambda f: rules.takes_only(f, 1)),
]


def commit():
    """The tree's, with `+` if it has changed since."""
    git = lambda *arguments: subprocess.run(["git", "-C", str(objects.ROOT), *arguments], capture_output=True, text=True).stdout
    return git("rev-parse", "--short", "HEAD").strip() + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


class Report:
    def __init__(self, compiled, compiler):
        self.compiled = compiled
        self.compiler = compiler
        self.missing = objects.missing_symbols(compiled)
        self.results = [*self.checks_of_functions(), *self.checks_of_all()]

    def checks_of_functions(self):
        by_name = {f.name: f for o in self.compiled for f in o.functions}
        for name, claim, rule in CHECKS:
            function = by_name.get(name)
            yield f"{name.replace('sluice::tilera::', '')}: {claim}", rule(function) if function else ["there is no such function"]

    def checks_of_all(self):
        senders = [f for o in self.compiled for f in o.functions if f.sends]
        yield (f"every packet of the {len(senders)} functions that send is whole and undisturbed",
               [f"{f.name}: {c}" for f in senders for c in rules.packets_are_whole(f)] if senders else ["nothing sends"])
        yield ("nothing is needed but what docs/tilera.md names",
               [f"{name}, by {', '.join(who)}" for name, who in sorted(self.missing.items()) if name not in objects.MAY_NEED])

    def all_hold(self):
        return not any(complaints for _, complaints in self.results)

    def text(self):
        lines = [f"TILE-Gx objects at commit {commit()}, by {self.compiler}", "",
                 f"{'object of':<42} {'text':>7} {'data':>6} {'bss':>6}  needs, beside other objects"]
        for o in self.compiled:
            if not any(o.sections.values()):  # units/tmc.cpp, without Tilera's library
                continue
            needs = sorted(n for n in o.undefined if n in self.missing)
            lines.append(f"{o.source:<42} {o.sections['text']:>7} {o.sections['data']:>6} {o.sections['bss']:>6}  {' '.join(needs)}".rstrip())
        totals = {s: sum(o.sections[s] for o in self.compiled) for s in ("text", "data", "bss")}
        lines += [f"{'all':<42} {totals['text']:>7} {totals['data']:>6} {totals['bss']:>6}  {' '.join(sorted(self.missing))}", ""]
        for claim, complaints in self.results:
            lines.append(f"{'FAIL' if complaints else 'pass'}  {claim}")
            lines += [f"      {c}" for c in complaints]
        passed = sum(not c for _, c in self.results)
        return "\n".join(lines + ["", f"{passed} passed, {len(self.results) - passed} failed"])

    def write(self, name):
        name.parent.mkdir(parents=True, exist_ok=True)
        name.with_suffix(".txt").write_text(self.text() + "\n")
        name.with_suffix(".json").write_text(json.dumps({
            "commit": commit(), "compiler": self.compiler, "flags": objects.FLAGS,
            "objects": [{"source": o.source, **o.sections, "needs": sorted(n for n in o.undefined if n in self.missing)}
                        for o in self.compiled],
            "checks": [{"claim": claim, "passed": not complaints, "complaints": complaints} for claim, complaints in self.results],
        }, indent=1) + "\n")
