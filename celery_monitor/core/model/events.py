"""Messages of the event stream, as delivered and as decoded, and the bounds of what is accepted."""

from typing import Annotated, Final

import msgspec

LATEST_TIMESTAMP: Final = 253_402_300_799.0
"""9999-12-31: what ``datetime`` can hold."""
MAX_RUNTIME: Final = 1e9
"""Seconds; 30 years. Sums of anything longer would leave what JSON can hold."""
MAX_INT: Final = 2**48 - 1
"""Of a count or a process ID; sums of it fit into a database's 64 bits."""
MAX_UUID_LENGTH: Final = 255
HEAD: Final = 256
"""Bytes that are kept of a message that is not read."""
MAX_TYPE_LENGTH: Final = 100


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One message as the broker delivered it."""

    body: bytes
    content_type: str = "application/json"
    redelivered: bool = False
    """The broker says that it has delivered this message before."""
    refused: str | None = None
    """Why it is not decoded, as a reason of ``discarded``: the body is then only the message's first bytes."""
    tag: str = ""
    """What the sender has marked it with; empty where the broker keeps messages until they are acknowledged."""


class Event(msgspec.Struct, gc=False):
    """One event of Celery's stream, with those fields that are used here. Source: facts measured on 4.4 to 5.7."""

    type: Annotated[str, msgspec.Meta(max_length=MAX_TYPE_LENGTH)]
    timestamp: Annotated[float, msgspec.Meta(ge=0.0, le=LATEST_TIMESTAMP)]
    hostname: str = ""
    uuid: Annotated[str, msgspec.Meta(max_length=MAX_UUID_LENGTH)] = ""
    name: str | None = None
    queue: str | None = None
    eta: str | None = None
    expires: str | None = None
    runtime: Annotated[float, msgspec.Meta(ge=0.0, le=MAX_RUNTIME)] | None = None
    exception: str | None = None
    traceback: str | None = None
    args: str | None = None
    kwargs: str | None = None
    requeue: bool | None = None
    retries: Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)] | None = None
    root_id: Annotated[str, msgspec.Meta(max_length=MAX_UUID_LENGTH)] | None = None
    parent_id: Annotated[str, msgspec.Meta(max_length=MAX_UUID_LENGTH)] | None = None
    active: Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)] | None = None
    processed: Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)] | None = None
    pid: Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)] | None = None
    loadavg: tuple[float, float, float] | None = None
    sw_ident: str | None = None
    sw_ver: str | None = None
    sw_sys: str | None = None
    probe_instance: Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)] | None = None
    """Of a probe: which process sent it."""
    probe_number: Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)] | None = None


class UnnamedEvent(msgspec.Struct, frozen=True, gc=False):
    """A task event that waits for the name of its task. Its texts are cut."""

    number: int
    """In the order of reading."""
    since: float
    """Unix seconds when it was read."""
    event: Event
    measured: float | None = None
    """Seconds in the queue or of work, as the event told."""
