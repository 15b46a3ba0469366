"""Torch's files of tensors, written without torch."""

import pickle
import zipfile
from pathlib import Path


def text(string: str) -> bytes:
    return b"X" + len(string).to_bytes(4, "little") + string.encode()


def number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)


def pickled_table(tensors, *, storage="FloatStorage", call="torch._utils _rebuild_tensor_v2"):
    """Pickle a state dict like torch, opcode by opcode, without torch."""
    table = b"\x80\x02ccollections\nOrderedDict\n)R("
    for key, (name, tensor) in enumerate(tensors.items()):
        place = b"(" + text("storage") + b"ctorch\n" + storage.encode() + b"\n"
        place += text(str(key)) + text("cpu") + number(tensor.size) + b"t"
        strides = [stride // tensor.itemsize for stride in tensor.strides]
        shape, steps = (
            b"(" + b"".join(map(number, sizes)) + b"t" for sizes in (tensor.shape, strides)
        )
        table += text(name) + b"c" + call.replace(" ", "\n").encode() + b"\n("
        table += place + b"Q" + number(0) + shape + steps + b"\x89ccollections\nOrderedDict\n)RtR"
    return table + b"u."


def write_zip(file: Path, tensors, **options) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/data.pkl", pickled_table(tensors, **options))
        archive.writestr("model/byteorder", "little")
        for key, tensor in enumerate(tensors.values()):
            archive.writestr(f"model/data/{key}", tensor.tobytes("A"))


def write_legacy(file: Path, tensors, **options) -> None:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    with file.open("wb") as stream:
        for value in (0x1950A86A20F9469CFC6C, 1001, system):
            pickle.dump(value, stream, protocol=2)
        stream.write(pickled_table(tensors, **options).replace(b"cpu", b"cpu"))
        pickle.dump([str(key) for key in range(len(tensors))], stream, protocol=2)
        for tensor in tensors.values():
            stream.write(tensor.size.to_bytes(8, "little") + tensor.tobytes("A"))
