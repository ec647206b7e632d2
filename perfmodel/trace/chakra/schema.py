"""The protobuf messages of a Chakra trace, for any protobuf runtime and without a compiler.

`et_def.binpb` is the descriptor of `et_def.proto` (a serialised FileDescriptorProto). It goes into
a pool of our own, so that an installed Chakra package with the same message names does not clash,
and there is no generated Python that is tied to a runtime version.
"""

from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FILE = "et_def"


def _messages() -> dict[str, Any]:
    """Message classes by name."""
    pool = descriptor_pool.DescriptorPool()
    descriptor = resources.files(__package__).joinpath(f"{_FILE}.binpb").read_bytes()
    pool.AddSerializedFile(descriptor)
    file = pool.FindFileByName(f"{_FILE}.proto")
    return {
        name: message_factory.GetMessageClass(message)
        for name, message in file.message_types_by_name.items()
    }


_CLASSES = _messages()
GlobalMetadata: Any = _CLASSES["GlobalMetadata"]
Node: Any = _CLASSES["Node"]
AttributeProto: Any = _CLASSES["AttributeProto"]
IOInfo: Any = _CLASSES["IOInfo"]


def compile_descriptor(folder: Path) -> bytes:
    """The descriptor that the protobuf compiler makes of `folder/et_def.proto` (for developers).

    Only grpcio-tools is needed. Comments and the compiler's JSON names are left out, because
    compiler versions differ in them and no reader needs them.
    """
    from tempfile import TemporaryDirectory

    from grpc_tools import protoc

    with TemporaryDirectory() as work:
        out = Path(work) / "set.binpb"
        status = protoc.main(
            ["protoc", f"-I{folder}", f"--descriptor_set_out={out}", f"{folder / _FILE}.proto"]
        )
        if status != 0:
            raise RuntimeError(f"protoc ended with status {status} on {folder / _FILE}.proto")
        file = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    for message in file.message_type:
        for field in message.field:
            field.ClearField("json_name")
    payload: bytes = file.SerializeToString(deterministic=True)
    return payload


if __name__ == "__main__":
    here = Path(__file__).parent
    (here / f"{_FILE}.binpb").write_bytes(compile_descriptor(here))
