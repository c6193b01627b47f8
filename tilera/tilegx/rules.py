"""What machine code that uses the network has to be like. Each rule gives its complaints about a function."""


def is_calling(function, bundle):
    """Whether it leaves the function other than by a return."""
    jump = bundle.jump
    if jump is None or jump.is_return:
        return False
    return jump.is_call or (target_of(function, bundle) is None and not is_by_table(function, bundle))


def target_of(function, bundle):
    """The bundle of the function to which it may jump, as an index, or None."""
    return function.index_of(bundle.target) if bundle.target is not None else None


def is_by_table(function, bundle):
    return bundle.jump.name in ("jr", "jrp") and not bundle.jump.is_return and bool(function.table)


def sends(function, words, registers=None):
    """One packet of so many words, without a branch; header and words perhaps from these registers, in order."""
    where = [n for n, b in enumerate(function.bundles) if b.any("is_send")]
    if not where:
        return ["sends nothing"]
    packet, found = function.sends, []
    if len(packet) != 1 + words:
        found.append(f"writes {len(packet)} times to udn0 instead of {1 + words} times")
    if not (packet[0].name == "addi" and packet[0].operands[2:] == (str(words),)):
        found.append(f"begins with `{packet[0]}`, which does not say that {words} words follow")
    took = [i.operands[1] for i in packet]
    if registers is not None and took != list(registers):
        found.append(f"sends {', '.join(took)} instead of {', '.join(registers)}")
    inside = function.bundles[where[0]:where[-1] + 1]
    return found + [c for b in inside for c in disturbances(b, b is inside[-1])]


def disturbances(bundle, is_last, harmless=()):
    """What does not belong into a bundle with words of a packet, or between such bundles; but for these branches."""
    kinds = {"a store": lambda i: i.is_store, "a fence": lambda i: i.is_fence, "a call": lambda i: i.is_call,
             "a receive": lambda i: i.received, "a branch": lambda i: i.is_branch and not is_last and i.name not in harmless}
    return [f"{kind} in the middle of a packet: `{i}`" for i in bundle.instructions for kind, is_so in kinds.items() if is_so(i)]


def packets_are_whole(function):
    """Wherever a packet begins, the words that it announces follow, and nothing else, on every way through the function."""
    found = set()
    # Pairs of a bundle and of how many words lack when it begins.
    work, seen = [(0, 0)], {(0, 0)}
    while work:
        n, lack = work.pop()
        bundle = function.bundles[n]
        is_inside = lack > 0 or bundle.any("is_send")
        for i in filter(lambda i: i.is_send, bundle.instructions):
            if lack > 0:
                lack -= 1
            elif i.name == "addi" and i.operands[2].isdigit():
                lack = int(i.operands[2])
            else:
                found.add(f"begins a packet with `{i}`, which does not say how many words follow")
        if is_inside:
            # Packets with the same last words may share them; to return in the middle is another complaint.
            found.update(disturbances(bundle, lack == 0, ("j", "jrp")))
        following = list(followers(function, n))
        if lack > 0 and not following:
            found.add(f"leaves a packet that lacks {lack} words")
        for state in ((f, lack) for f in following):
            if state not in seen:
                seen.add(state)
                work.append(state)
    return sorted(found)


def receives(function, queue, words):
    """So many words from this queue, and none from another."""
    taken = [q for i in function.instructions for q in i.received]
    wanted = [f"udn{queue}"] * words
    found = [] if taken == wanted else [f"takes words from {taken or 'no queue'} instead of {wanted}"]
    return found + [f"calls: `{b.jump}`" for b in function.bundles if is_calling(function, b)]


def takes_only(function, queue):
    """Words of no other queue."""
    taken = {q for i in function.instructions for q in i.received}
    return [] if taken == {f"udn{queue}"} else [f"takes words from {', '.join(sorted(taken)) or 'no queue'}"]


def fences_before_sends(function):
    """On every way through the function, a fence stands between a store and the packet after it."""
    if not any(i.is_store for i in function.instructions):
        return ["stores nothing"]
    return unfenced_sends(function, False)


def fences_lead_to_sends(function):
    """The same for what has been stored before the function was called; what it stores itself is its own."""
    return unfenced_sends(function, True, lambda bundle: False)


def unfenced_sends(function, stored_before, stores=None):
    """Sends that a store may precede without a fence between the two. By default, whoever is called may store."""
    if not function.sends:
        return ["sends nothing"]
    stores = stores or (lambda bundle: bundle.any("is_store") or is_calling(function, bundle))
    found = set()
    before = {0: stored_before}  # by bundle: whether a store that no fence follows may precede it
    work = [0]
    while work:
        n = work.pop()
        bundle = function.bundles[n]
        # What is in one bundle goes off at once, so a store there is not before the send either.
        if bundle.any("is_send") and (before[n] or stores(bundle)):
            found.add(f"no fence between a store and `{next(i for i in bundle.instructions if i.is_send)}`")
        stored = stores(bundle) or (before[n] and not bundle.any("is_fence"))
        for follower in followers(function, n):
            if follower not in before or (stored and not before[follower]):
                before[follower] = stored
                work.append(follower)
    return sorted(found)


def followers(function, n):
    """The bundles of the function that may be next."""
    bundle, jump = function.bundles[n], function.bundles[n].jump
    if jump is not None and jump.is_branch:
        inside = target_of(function, bundle)
        if inside is not None:
            yield inside
        if is_by_table(function, bundle):
            yield from (function.index_of(address) for address in sorted(function.table))
    goes_on = jump is None or jump.is_call or jump.name.startswith("b")
    if goes_on and n + 1 < len(function.bundles):
        yield n + 1


def reads_special_register(function, name):
    found = any(i.name == "mfspr" and i.operands[1:] == (name,) for i in function.instructions)
    return [] if found else [f"does not read {name}"]


def makes_no_call(function):
    return [f"calls: `{b.jump}`" for b in function.bundles if is_calling(function, b)]


def loads_after_receive(function):
    """No load goes off before, or together with, the word that it waits for."""
    before, after = around(function, "received", "is_load")
    return [] if after and not before else ["loads before it has received, or nothing"]


def loads_before_and_after_receive(function):
    return [] if all(around(function, "received", "is_load")) else ["does not load on both sides of a word received"]


def stores_before_and_after_packet(function):
    return [] if all(around(function, "is_send", "is_store")) else ["does not store on both sides of a packet"]


def around(function, what, other):
    """How many bundles have the other before what is there, or with it; and how many after all of that."""
    where = [n for n, b in enumerate(function.bundles) if b.any(what)]
    if not where:
        return 0, 0
    others = [n for n, b in enumerate(function.bundles) if b.any(other)]
    return sum(n <= where[0] for n in others), sum(n > where[-1] for n in others)
