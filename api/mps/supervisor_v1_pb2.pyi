# mypy: disable-error-code=type-arg
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STARTING: _ClassVar[State]
    READY: _ClassVar[State]
    WEDGED: _ClassVar[State]
    DEAD: _ClassVar[State]
    STOPPING: _ClassVar[State]
STATE_UNSPECIFIED: State
STARTING: State
READY: State
WEDGED: State
DEAD: State
STOPPING: State

class InfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Info(_message.Message):
    __slots__ = ("version", "protocol", "mps_protocols")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    MPS_PROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    version: str
    protocol: int
    mps_protocols: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, version: _Optional[str] = ..., protocol: _Optional[int] = ..., mps_protocols: _Optional[_Iterable[int]] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("id", "devices", "exclusive_gpus", "active_thread_percentage", "pinned_memory_mib", "multi_user", "mps_protocol", "serve")
    class PinnedMemoryMibEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_GPUS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_THREAD_PERCENTAGE_FIELD_NUMBER: _ClassVar[int]
    PINNED_MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    MULTI_USER_FIELD_NUMBER: _ClassVar[int]
    MPS_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SERVE_FIELD_NUMBER: _ClassVar[int]
    id: str
    devices: _containers.RepeatedScalarFieldContainer[str]
    exclusive_gpus: _containers.RepeatedScalarFieldContainer[str]
    active_thread_percentage: int
    pinned_memory_mib: _containers.ScalarMap[str, int]
    multi_user: bool
    mps_protocol: int
    serve: bool
    def __init__(self, id: _Optional[str] = ..., devices: _Optional[_Iterable[str]] = ..., exclusive_gpus: _Optional[_Iterable[str]] = ..., active_thread_percentage: _Optional[int] = ..., pinned_memory_mib: _Optional[_Mapping[str, int]] = ..., multi_user: _Optional[bool] = ..., mps_protocol: _Optional[int] = ..., serve: _Optional[bool] = ...) -> None: ...

class Share(_message.Message):
    __slots__ = ("name", "pinned_memory_mib", "active_thread_percentage", "low_priority")
    class PinnedMemoryMibEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    PINNED_MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_THREAD_PERCENTAGE_FIELD_NUMBER: _ClassVar[int]
    LOW_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    pinned_memory_mib: _containers.ScalarMap[str, int]
    active_thread_percentage: int
    low_priority: bool
    def __init__(self, name: _Optional[str] = ..., pinned_memory_mib: _Optional[_Mapping[str, int]] = ..., active_thread_percentage: _Optional[int] = ..., low_priority: _Optional[bool] = ...) -> None: ...

class ShareStatus(_message.Message):
    __slots__ = ("share", "message")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    share: Share
    message: str
    def __init__(self, share: _Optional[_Union[Share, _Mapping]] = ..., message: _Optional[str] = ...) -> None: ...

class GroupStatus(_message.Message):
    __slots__ = ("group", "state", "message", "pid", "clients", "shares")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    group: Group
    state: State
    message: str
    pid: int
    clients: int
    shares: _containers.RepeatedCompositeFieldContainer[ShareStatus]
    def __init__(self, group: _Optional[_Union[Group, _Mapping]] = ..., state: _Optional[_Union[State, str]] = ..., message: _Optional[str] = ..., pid: _Optional[int] = ..., clients: _Optional[int] = ..., shares: _Optional[_Iterable[_Union[ShareStatus, _Mapping]]] = ...) -> None: ...

class StartGroupRequest(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: Group
    def __init__(self, group: _Optional[_Union[Group, _Mapping]] = ...) -> None: ...

class StopGroupRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class StopGroupResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PutShareRequest(_message.Message):
    __slots__ = ("group_id", "share")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    share: Share
    def __init__(self, group_id: _Optional[str] = ..., share: _Optional[_Union[Share, _Mapping]] = ...) -> None: ...

class RemoveShareRequest(_message.Message):
    __slots__ = ("group_id", "name")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    name: str
    def __init__(self, group_id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class RemoveShareResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListGroupsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Groups(_message.Message):
    __slots__ = ("groups",)
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[GroupStatus]
    def __init__(self, groups: _Optional[_Iterable[_Union[GroupStatus, _Mapping]]] = ...) -> None: ...
