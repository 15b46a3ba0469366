"""What a compiled program for a GPU does: its kernels by kind, and what they read and write."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

_INSTRUCTION = re.compile(
    r"^  (?:ROOT )?%(?P<name>[\w.\-]+) = (?P<type>\(.*?\)|\S+) (?P<operation>[\w\-]+)"
    r"\((?P<operands>[^)]*)\)",
    re.MULTILINE,
)
_NO_KERNEL = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
_TARGETS = {"__cublas": "matmul", "__cudnn$fmha": "attention", "__gpu$xla.gpu.triton": "triton"}
_IN_PLACE = "scatter"  # it touches a part of what it takes and gives back
_ITEM_BITS = re.compile(r"^[a-z]+(\d+)")


class KernelKind(StrEnum):
    """The kind of a kernel."""

    MATMUL = "matmul"  # of cuBLAS
    ATTENTION = "attention"  # of cuDNN
    TRITON = "triton"  # of fused layers
    SCATTER = "scatter"
    PASS = "pass"  # any other: fusions of the compiler's own, copies


class Kernel(NamedTuple):
    """A kernel, or several that one call starts."""

    kind: KernelKind
    detail: str  # of a matmul its epilogue, else the instruction's name without its number
    read: int  # bytes of its operands
    written: int  # bytes of its results, with the workspace of matmuls
    origin: str  # the end of the name that JAX gives it: module and operation

    @property
    def moved(self) -> int:
        """Bytes read and written."""
        return self.read + self.written


def parse_kernels(text: str) -> list[Kernel]:
    """Return the kernels of a program, each array that one names counted in full.

    Args:
        text: the HLO text, from `jax.stages.Compiled.as_text`.

    Raises:
        ValueError: the program has a loop or a branch at its top, whose kernels are not seen.

    Example: a product of two matrices with a bias is one kernel of kind ``matmul`` with the detail
    ``BIAS``, which reads three arrays.
    """
    entry = re.search(r"^ENTRY .*?^}", text, re.MULTILINE | re.DOTALL)
    if entry is None:
        raise ValueError("no program: its text has no ENTRY")
    sizes: dict[str, int] = {}
    kernels = []
    for line in entry.group().splitlines():
        found = _INSTRUCTION.match(line)
        if found is None:
            continue
        name, operation = found["name"], found["operation"]
        sizes[name] = _bytes(found["type"])
        if operation in ("while", "conditional"):
            raise ValueError(f"the kernels of {name} are not seen: compile all layers as one")
        if operation not in _NO_KERNEL:
            kind = _kind(operation, name, line)
            read = sum(sizes[operand] for operand in re.findall(r"%([\w.\-]+)", found["operands"]))
            detail = _after(line, '"epilogue":') if kind is KernelKind.MATMUL else ""
            detail = detail or re.sub(r"[.\d]+$", "", name)
            origin = "/".join(_after(line, "op_name=").split("/")[-2:])
            kernels.append(Kernel(kind, detail, read, sizes[name], origin))
    return kernels


def count_kinds(kernels: Iterable[Kernel]) -> Counter[KernelKind]:
    """Count kernels by kind."""
    return Counter(kernel.kind for kernel in kernels)


def bytes_between_matmuls(kernels: Iterable[Kernel]) -> int:
    """Return the bytes that kernels move that are neither matmuls nor attention nor scatters."""
    between = (KernelKind.TRITON, KernelKind.PASS)
    return sum(kernel.moved for kernel in kernels if kernel.kind in between)


def passes_table(kernels: Iterable[Kernel], *, least: int = 10**6) -> str:
    """Return a Markdown table of the kernels between matmuls, with equal kernels in one row.

    Args:
        kernels: the kernels of a program.
        least: the fewest bytes that a kernel in the table moves.
    """
    lines = [
        "| kernels | MB read | MB written | kind | origin |",
        "| --- | --- | --- | --- | --- |",
    ]
    apart = (KernelKind.MATMUL, KernelKind.ATTENTION)
    counts = Counter(k for k in kernels if k.kind not in apart and k.moved >= least)
    for kernel, number in sorted(counts.items(), key=lambda row: -row[0].moved * row[1]):
        read, written = kernel.read / 1e6, kernel.written / 1e6
        lines.append(f"| {number} | {read:.1f} | {written:.1f} | {kernel.kind} | {kernel.origin} |")
    return "\n".join(lines)


def _kind(operation: str, name: str, line: str) -> KernelKind:
    target = _after(line, "custom_call_target=") if operation == "custom-call" else ""
    for prefix, kind in _TARGETS.items():
        if target.startswith(prefix):
            return KernelKind(kind)
    return KernelKind.SCATTER if _IN_PLACE in name else KernelKind.PASS


def _after(line: str, key: str) -> str:
    """Return the string in quotes that follows a key; empty if the line does not have it."""
    found = re.search(re.escape(key) + r'"([^"]*)"', line)
    return found.group(1) if found else ""


def _bytes(type_text: str) -> int:
    """Return the bytes of an array's type, or of all arrays of a tuple's."""
    total = 0
    for item, shape in re.findall(r"([a-z]\w*)\[([\d,]*)\]", type_text):
        bits = int(found.group(1)) if (found := _ITEM_BITS.match(item)) else 8
        total += math.prod(int(size) for size in shape.split(",") if size) * bits // 8
    return total
