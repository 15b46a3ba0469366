"""Bytes that a compiled program moves between its matrix products, from its text (HLO)."""

from albert_jax.devices.program_text import (
    Instruction,
    arrays_of,
    count_runs,
    parse_computations,
)

_NO_KERNEL = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while"),
    *("conditional", "call", "partition-id", "replica-id", "iota", "opt-barrier", "domain"),
    *("add-dependency", "rng-get-and-update-state"),
}
# Not counted here: collectives, which `collectives` counts, copies to the chip of a TPU and back,
# which happen while it computes, and instructions that end an operation, which move nothing more.
_ELSEWHERE = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"),
    *("send", "recv", "copy-start", "slice-start", "-done"),
)
_PRODUCTS = {"dot", "convolution"}
# Calls of cuBLAS and cuDNN, and attention's kernels for TPUs.
_PRODUCT_CALLS = ("__cublas", "__cudnn$", "tpu_custom_call", "$onednn", "__onednn")
_ALLOCATION = 'custom_call_target="AllocateBuffer"'
_SLICES = {"dynamic-slice", "slice", "gather"}


def bytes_between_matmuls(text: str) -> int:
    """Return how much device memory is read and written by kernels that multiply no matrices.

    Kernels that do are left out with what is fused into them, and so are copies that run beside
    them. Of an array of which a kernel reads or updates a slice, only the slice counts. A loop's
    body counts as often as it runs.

    Args:
        text: the HLO text, from `jax.stages.Compiled.as_text`.

    Example: a kernel that adds two arrays of 1 MB in a loop over 12 layers moves 36 MB.
    """
    computations = parse_computations(text)
    runs = count_runs(computations)
    inner = {
        name
        for instructions in computations.values()
        for instruction in instructions
        if instruction.operation not in ("while", "conditional", "call")
        for name in instruction.called
    }
    return sum(
        runs.get(name, 0) * _moved(instructions, computations)
        for name, instructions in computations.items()
        if name not in inner
    )


def _moved(instructions: list[Instruction], computations: dict[str, list[Instruction]]) -> int:
    """Return the bytes that one run of a computation moves."""
    types = {instruction.name: instruction.type for instruction in instructions}
    total = 0
    for instruction in instructions:
        operation = instruction.operation
        if operation in _NO_KERNEL or any(part in operation for part in _ELSEWHERE):
            continue
        if _multiplies(instruction, computations) or _ALLOCATION in instruction.line:
            continue
        body = _fused(instruction, computations)
        if body:
            total += _moved_by_fusion(instruction, body, types)
        elif operation in _SLICES:
            total += 2 * _bytes(instruction.type)
        elif operation in ("dynamic-update-slice", "scatter"):
            total += 2 * _bytes(types.get(instruction.operands[1 if "update" in operation else -1]))
        else:
            total += _bytes(instruction.type)
            total += sum(_bytes(types.get(name)) for name in instruction.operands)
    return total


def _moved_by_fusion(fusion: Instruction, body: list[Instruction], types: dict[str, str]) -> int:
    """Return the bytes of a fusion's operands and results, or of the slices that it takes."""
    within = {instruction.name: instruction for instruction in body}
    parameters = sorted(
        (i for i in body if i.operation == "parameter"),
        key=lambda i: int(i.line.partition("parameter(")[2].partition(")")[0]),
    )
    total = 0
    for name, parameter in zip(fusion.operands, parameters, strict=False):
        if not all(array.on_chip for array in arrays_of(types.get(name, ""))):
            total += _read(parameter, body)
    root = next((i for i in body if i.is_root), body[-1])
    roots = [within[n] for n in root.operands] if root.operation == "tuple" else [root]
    results = arrays_of(fusion.type)
    for result, part in zip(results, roots, strict=False):
        source = _without_bitcasts(part, within)
        if result.on_chip:
            continue
        if source.operation == "dynamic-update-slice":
            total += _bytes(within[source.operands[1]].type)
        else:
            total += result.bytes
    return total


def _read(parameter: Instruction, body: list[Instruction]) -> int:
    """Return what a fusion reads of a parameter: all of it, or its slices."""
    users = [i for i in body if parameter.name in i.operands]
    if users and all(i.operation in ("bitcast", *_SLICES, "dynamic-update-slice") for i in users):
        total = 0
        for user in users:
            first = user.operands[0] == parameter.name
            if user.operation == "bitcast":
                total += _read(user, body)
            elif user.operation == "dynamic-update-slice":
                total += 0 if first else _bytes(parameter.type)
            else:
                total += _bytes(user.type) if first else _bytes(parameter.type)
        return min(total, _bytes(parameter.type))
    return _bytes(parameter.type)


def _without_bitcasts(instruction: Instruction, within: dict[str, Instruction]) -> Instruction:
    while instruction.operation in ("bitcast", "copy") and instruction.operands[0] in within:
        instruction = within[instruction.operands[0]]
    return instruction


def _multiplies(instruction: Instruction, computations: dict[str, list[Instruction]]) -> bool:
    """Return True for a product of matrices or attention, or what is fused with one."""
    if instruction.operation in _PRODUCTS:
        return True
    if instruction.operation == "custom-call":
        return any(name in instruction.line for name in _PRODUCT_CALLS)
    body = _fused(instruction, computations)
    return any(_multiplies(inner, computations) for inner in body)


def _fused(
    instruction: Instruction, computations: dict[str, list[Instruction]]
) -> list[Instruction]:
    """Return the body of a fusion; empty for other instructions."""
    if instruction.operation not in ("fusion", "async-start"):
        return []
    return [i for name in instruction.called for i in computations.get(name, ())]


def _bytes(type_text: str | None) -> int:
    return sum(array.bytes for array in arrays_of(type_text or "") if not array.on_chip)
