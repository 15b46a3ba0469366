"""The text of a compiled program (HLO): its computations, how often each runs, and its arrays."""

import math
import re
from collections import defaultdict
from typing import NamedTuple

_HEADER = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>\(.*?\)|\S+) (?P<operation>[\w\-]+)"
    r"\((?P<rest>.*)$"
)
_CALLED = re.compile(
    r"(?:body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_LOOP = re.compile(r"(?:body|condition)=%?([\w.\-]+)")
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_ARRAY = re.compile(r"(?P<dtype>[a-z]\w*)\[(?P<shape>[\d,]*)\](?P<layout>\{[^}]*\})?")
_BITS = re.compile(r"^[a-z]+(\d+)")
_ON_CHIP = re.compile(r"S\([1-9]\d*\)")  # memory spaces of TPUs that are not HBM


class Instruction(NamedTuple):
    """An instruction of a computation."""

    name: str
    type: str
    operation: str
    operands: tuple[str, ...]
    line: str

    @property
    def is_root(self) -> bool:
        """True for the computation's result."""
        return self.line.lstrip().startswith("ROOT ")

    @property
    def called(self) -> list[str]:
        """The names of the computations that it runs."""
        branches = [name for names in _BRANCHES.findall(self.line) for name in names.split(",")]
        return [*_CALLED.findall(self.line), *(name.strip(" %") for name in branches)]


class Array(NamedTuple):
    """An array of a type."""

    bits: int  # of an element
    elements: int
    on_chip: bool  # True if it is not in the device's main memory

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return self.bits * self.elements // 8


def arrays_of(type_text: str) -> list[Array]:
    """Return the arrays of a type, one or those of a tuple.

    Example: ``(f32[2,3]{1,0}, bf16[4]{0:T(128)S(1)})`` has one of 24 bytes, and one of 8 on chip.
    """
    found = []
    for item in _ARRAY.finditer(type_text):
        bits = int(match[1]) if (match := _BITS.match(item["dtype"])) else 8
        elements = math.prod(int(size) for size in item["shape"].split(",") if size)
        found.append(Array(bits, elements, bool(_ON_CHIP.search(item["layout"] or ""))))
    return found


def parse_computations(text: str) -> dict[str, list[Instruction]]:
    """Return the instructions of each computation by its name, with the program itself last."""
    found: dict[str, list[Instruction]] = {}
    entry = name = None
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name = header["name"]
            found[name] = []
            entry = name if header["entry"] else entry
        elif name and (match := _INSTRUCTION.match(line)):
            operands = tuple(re.findall(r"%([\w.\-]+)", _first_parenthesis(match["rest"])))
            fields = match["name"], match["type"], match["operation"], operands, line
            found[name].append(Instruction(*fields))
    if entry is not None:
        found[entry] = found.pop(entry)
    return found


def _first_parenthesis(rest: str) -> str:
    """Return the text before the parenthesis that closes the operands."""
    depth = 1
    for place, character in enumerate(rest):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if not depth:
            return rest[:place]
    return rest


def count_runs(computations: dict[str, list[Instruction]]) -> dict[str, int]:
    """Return how often each computation runs when the program runs once, by its name.

    A loop whose number of iterations is not known counts once.

    Example: the body of a loop over 12 layers inside a loop over 4 micro-batches runs 48 times.
    """
    runs: dict[str, int] = defaultdict(int)

    def run(name: str, times: int) -> None:
        runs[name] += times
        for instruction in computations.get(name, ()):
            iterations = 1
            if instruction.operation == "while":
                iterations = _iterations(instruction, computations)
            for called in instruction.called:
                run(called, times * iterations)

    if computations:
        run(next(reversed(computations)), 1)
    return dict(runs)


def _iterations(loop: Instruction, computations: dict[str, list[Instruction]]) -> int:
    """Return a loop's number of iterations: the annotated one, or the constant it counts to."""
    if known := _TRIP_COUNT.search(loop.line):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.line)
    lines = (i.line for i in computations.get(condition[1], ())) if condition else ()
    limits = [int(n) for line in lines for n in re.findall(r" s32\[\]\S* constant\((\d+)\)", line)]
    return max(limits, default=1)


def computations_in_loops(computations: dict[str, list[Instruction]]) -> set[str]:
    """Return the names of the computations that a loop runs, directly or through calls."""
    instructions = [i for several in computations.values() for i in several]
    loops = (i.line for i in instructions if i.operation == "while")
    pending = [name for line in loops for name in _LOOP.findall(line)]
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += [n for i in computations.get(name, ()) for n in i.called]
    return seen
