"""The gRPC services as data: paths and codecs, from which servers and clients are built.

Servers receive raw bytes and decode inside the handler: a message that is malformed then answers
INVALID_ARGUMENT, where gRPC's own deserialiser hook would make it an error of the server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from roofleet_proto import codec

PACKAGE = "roofleet.v1"
HEARTBEAT_MS = 5_000
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

REJECTED_EPOCH = "roofleet-rejected-epoch"
REJECTED_SEQUENCE = "roofleet-rejected-sequence"
"""Trailing metadata of a stream that ended over one batch: which one it was."""
RETRY_AFTER_MS = "roofleet-retry-after-ms"
"""Trailing metadata of a stream that ended because the collector cannot keep up: when to come back. gRPC has
the same status for a message over the limit, without them."""


@dataclass(frozen=True)
class Method:
    """One RPC: its place, whether it streams both ways, and how its messages are encoded."""

    service: str
    name: str
    streams: bool
    encode_request: Callable[[Any], bytes]
    decode_request: Callable[[bytes], Any]
    encode_reply: Callable[[Any], bytes]
    decode_reply: Callable[[bytes], Any]

    @property
    def path(self) -> str:
        """The HTTP/2 path gRPC calls it by."""
        return f"/{PACKAGE}.{self.service}/{self.name}"

    def client(self, channel: Any) -> Any:
        """The callable of this method on a grpc or grpc.aio channel."""
        make = channel.stream_stream if self.streams else channel.unary_unary
        return make(
            self.path, request_serializer=self.encode_request, response_deserializer=self.decode_reply
        )


PUSH = Method(
    "Ingest", "Push", True, codec.encode_batch, codec.decode_batch, codec.encode_ack, codec.decode_ack
)
ATTACH = Method(
    "Fleet",
    "Attach",
    True,
    codec.encode_agent_message,
    codec.decode_agent_message,
    codec.encode_collector_message,
    codec.decode_collector_message,
)


def _listing(name: str, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]) -> Method:
    return Method("Control", name, False, codec.encode_filter, codec.decode_filter, encode, decode)


GET_COLLECTOR = _listing("GetCollector", codec.encode_collector, codec.decode_collector)
LIST_AGENTS = _listing("ListAgents", codec.encode_agents, codec.decode_agents)
LIST_MODELS = _listing("ListModels", codec.encode_names, codec.decode_names)
LIST_HARDWARE = _listing("ListHardware", codec.encode_names, codec.decode_names)
SUBMIT_JOB = Method(
    "Control",
    "SubmitJob",
    False,
    codec.encode_submission,
    codec.decode_submission,
    codec.encode_jobs,
    codec.decode_jobs,
)
CANCEL_JOB = Method(
    "Control",
    "CancelJob",
    False,
    codec.encode_job_id,
    codec.decode_job_id,
    codec.encode_job,
    codec.decode_job,
)
LIST_JOBS = Method(
    "Control",
    "ListJobs",
    False,
    codec.encode_jobs_asked,
    codec.decode_jobs_asked,
    codec.encode_jobs,
    codec.decode_jobs,
)
LABEL_HOST = Method(
    "Control",
    "LabelHost",
    False,
    codec.encode_host_labels,
    codec.decode_host_labels,
    codec.encode_labels,
    codec.decode_labels,
)
JOIN = Method(
    "Keys",
    "Join",
    False,
    codec.encode_join,
    codec.decode_join,
    codec.encode_joined,
    codec.decode_joined,
)
CHANGE_RUN = Method(
    "Control",
    "ChangeRun",
    False,
    codec.encode_run_change,
    codec.decode_run_change,
    codec.encode_found,
    codec.decode_found,
)
DELETE_RUNS = Method(
    "Control",
    "DeleteRuns",
    False,
    codec.encode_run_ids,
    codec.decode_run_ids,
    codec.encode_run_ids,
    codec.decode_run_ids,
)
BACKUP = Method(
    "Control",
    "Backup",
    False,
    codec.encode_nothing,
    codec.decode_nothing,
    codec.encode_backup,
    codec.decode_backup,
)
