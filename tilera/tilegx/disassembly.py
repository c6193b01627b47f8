"""What `objdump -d -r -C` prints of a TILE-Gx object, as functions of bundles of instructions.

A bundle is what goes off in one cycle: up to three instructions, in braces. A word is sent by any instruction whose
destination is the register udn0, and received by any that reads one of udn0 to udn3.
"""
import re
from dataclasses import dataclass, field

QUEUES = ("udn0", "udn1", "udn2", "udn3")
SEND_REGISTER = "udn0"

STORE = re.compile(r"st(nt)?[124]?(_add)?|(cmpexch|exch|fetchadd|fetchaddgez|fetchand|fetchor)4?|wh64")
LOAD = re.compile(r"ld(nt|na)?[124]?[su]?(_add)?")
CALL = re.compile(r"jalr?p?|swint[0-3]")
BRANCH = re.compile(r"b(eqz|gez|gtz|lbc|lbs|lez|ltz|nez)t?|jr?p?|iret")
# Those that write no register; of stores with an update the register is an address.
NO_DESTINATION = re.compile(r"st(nt)?[124]?(_add)?|wh64|mtspr|mf|f?nop|infol?|drain|nap|ill|bpt|(prefetch|dtlbpr|f?inv|flush)\w*")

SECTION_LINE = re.compile(r"Disassembly of section (\S+):$")
FUNCTION_LINE = re.compile(r"([0-9a-f]+) <(.+)>:$")
BUNDLE_LINE = re.compile(r"\s*([0-9a-f]+):\s+[0-9a-f]+\s+\{ (.*) \}$")
RELOCATION_LINE = re.compile(r"\s*[0-9a-f]+: (R_TILEGX_\w+)\s+(\S+)")
# Of data: where a table of jumps has an address of code.
ADDRESS_LINE = re.compile(r"[0-9a-f]{16} R_TILEGX_64\s+(\S+?)(?:\+0x([0-9a-f]+))?$")


@dataclass(frozen=True)
class Instruction:
    name: str
    operands: tuple = ()

    @property
    def is_store(self):
        return bool(STORE.fullmatch(self.name))

    @property
    def is_load(self):
        return bool(LOAD.fullmatch(self.name))

    @property
    def is_call(self):
        return bool(CALL.fullmatch(self.name))

    @property
    def is_branch(self):
        return bool(BRANCH.fullmatch(self.name))

    @property
    def is_return(self):
        return self.name in ("jrp", "jr") and self.operands == ("lr",)

    @property
    def is_fence(self):
        return self.name == "mf"

    @property
    def _has_destination(self):
        return not (self.is_branch or self.is_call or NO_DESTINATION.fullmatch(self.name))

    @property
    def is_send(self):
        return self._has_destination and self.operands[:1] == (SEND_REGISTER,)

    @property
    def sources(self):
        return self.operands[1:] if self._has_destination else self.operands

    @property
    def received(self):
        """The queues that it takes a word from."""
        return [o for o in self.sources if o in QUEUES]

    def __str__(self):
        return f"{self.name} {', '.join(self.operands)}".strip()


@dataclass
class Bundle:
    address: int
    instructions: list
    relocations: list = field(default_factory=list)  # of (kind, symbol)

    def any(self, attribute):
        return any(getattr(i, attribute) for i in self.instructions)

    @property
    def jump(self):
        """The instruction that may go on elsewhere, or None."""
        return next((i for i in self.instructions if i.is_branch or i.is_call), None)

    @property
    def target(self):
        """An address in this section; None: elsewhere, or not known."""
        jump = self.jump
        if jump is None or not jump.operands or any("JUMP" in k or "BROFF" in k for k, _ in self.relocations):
            return None
        match = re.fullmatch(r"[0-9a-f]+", jump.operands[-1])
        return int(match.group(), 16) if match else None


@dataclass
class Function:
    name: str
    section: str = ""
    bundles: list = field(default_factory=list)
    table: set = field(default_factory=set)  # addresses inside that tables have

    @property
    def instructions(self):
        return [i for b in self.bundles for i in b.instructions]

    @property
    def sends(self):
        return [i for i in self.instructions if i.is_send]

    def index_of(self, address):
        """Of the bundle there; None: not in this function."""
        return next((n for n, b in enumerate(self.bundles) if b.address == address), None)


def instruction_of(text):
    """Without the name of where it jumps to, which may have commas."""
    name, _, operands = re.sub(r" <.*", "", text.strip()).partition(" ")
    return Instruction(name, tuple(o.strip() for o in operands.split(",") if o.strip()))


def parse(text, data_relocations=""):
    """All functions, in the order in which they stand. The second text is of `objdump -r`."""
    functions, section = [], ""
    for line in text.splitlines():
        if match := SECTION_LINE.match(line):
            section = match.group(1)
        elif match := FUNCTION_LINE.match(line):
            functions.append(Function(match.group(2), section))
        elif match := BUNDLE_LINE.match(line):
            instructions = [instruction_of(t) for t in match.group(2).split(" ; ")]
            functions[-1].bundles.append(Bundle(int(match.group(1), 16), instructions))
        elif match := RELOCATION_LINE.match(line):
            functions[-1].bundles[-1].relocations.append(match.groups())
    named = {(match.group(1), int(match.group(2) or "0", 16)) for line in data_relocations.splitlines()
             if (match := ADDRESS_LINE.match(line))}
    for f in functions:
        f.table = {b.address for b in f.bundles[1:] if (f.section, b.address) in named}
    return functions
