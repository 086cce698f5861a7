"""The messages of profile.proto, the format of pprof, for the protobuf runtime.

Described here by field instead of compiled, so that a build needs no protoc. Names, numbers and
types are those of https://github.com/google/pprof/blob/main/proto/profile.proto; fields that a
heap of a kernel has no use for are left out, which the encoding allows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

_PACKAGE = "perftools.profiles"

# Message -> fields, as "name number type"; a * makes it repeated.
_MESSAGES = {
    "ValueType": ("type 1 int64", "unit 2 int64"),
    "Label": ("key 1 int64", "str 2 int64", "num 3 int64", "num_unit 4 int64"),
    "Sample": ("location_id 1 *uint64", "value 2 *int64", "label 3 *Label"),
    "Mapping": (
        "id 1 uint64",
        "memory_start 2 uint64",
        "memory_limit 3 uint64",
        "file_offset 4 uint64",
        "filename 5 int64",
        "build_id 6 int64",
        "has_functions 7 bool",
        "has_filenames 8 bool",
        "has_line_numbers 9 bool",
        "has_inline_frames 10 bool",
    ),
    "Line": ("function_id 1 uint64", "line 2 int64"),
    "Location": ("id 1 uint64", "mapping_id 2 uint64", "address 3 uint64", "line 4 *Line"),
    "Function": (
        "id 1 uint64",
        "name 2 int64",
        "system_name 3 int64",
        "filename 4 int64",
        "start_line 5 int64",
    ),
    "Profile": (
        "sample_type 1 *ValueType",
        "sample 2 *Sample",
        "mapping 3 *Mapping",
        "location 4 *Location",
        "function 5 *Function",
        "string_table 6 *string",
        "time_nanos 9 int64",
        "duration_nanos 10 int64",
        "comment 13 *int64",
        "default_sample_type 14 int64",
    ),
}


@cache
def profile_class() -> Any:
    """Return the class of message Profile. Its type is made at run time, hence Any."""
    # Late: it takes 50 ms, and one format of ten needs it.
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field_class = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="kleak/profile.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields:
            field_name, number, kind = field.split()
            described = message.field.add(name=field_name, number=int(number))
            repeated = kind.startswith("*")
            kind = kind.removeprefix("*")
            described.label = field_class.LABEL_REPEATED if repeated else field_class.LABEL_OPTIONAL
            if kind in _MESSAGES:
                described.type = field_class.TYPE_MESSAGE
                described.type_name = f".{_PACKAGE}.{kind}"
            else:
                described.type = getattr(field_class, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    profile = pool.FindMessageTypeByName(f"{_PACKAGE}.Profile")
    factory: Any = message_factory
    if hasattr(factory, "GetMessageClass"):  # from 4.22 on; Debian 12 has 3.21
        return factory.GetMessageClass(profile)
    return factory.MessageFactory(pool).GetPrototype(profile)
