"""Records to bytes and back: this is where protobuf and Arrow IPC stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pyarrow as pa
from google.protobuf.message import DecodeError, Message

from roofleet_proto.arrow_ipc import read_stream
from roofleet_proto.errors import MalformedMessage as MalformedMessage
from roofleet_proto.records import (
    Ack,
    AgentMessage,
    AgentStatus,
    Assignment,
    BackupDone,
    Batch,
    Cancellation,
    CollectorInfo,
    CollectorMessage,
    DeviceOffer,
    Filter,
    Heartbeat,
    Hello,
    HostLabels,
    Job,
    JobId,
    JobProgress,
    JobsAsked,
    Joined,
    JoinRequest,
    Label,
    Lease,
    Offer,
    Renewal,
    Renewed,
    RunChange,
    RunIds,
    Separation,
    Settled,
    Submission,
    Welcome,
)
from roofleet_proto.tables import Table
from roofleet_proto.wire import keys_pb2 as keys_pb
from roofleet_proto.wire import roofleet_pb2 as pb

MessageT = TypeVar("MessageT", bound=Message)

MAX_ROWS_BYTES = 64 * 1024 * 1024
"""What the rows of one batch may decode to: four times the largest message."""


def _parse(kind: Callable[[], MessageT], data: bytes) -> MessageT:
    message = kind()
    try:
        message.ParseFromString(data)
    except (DecodeError, RuntimeError, ValueError) as error:
        name = message.DESCRIPTOR.full_name
        raise MalformedMessage(f"{len(data)} bytes are not a {name} message: {error}") from error
    return message


def encode_batch(batch: Batch) -> bytes:
    """A Batch as protobuf bytes."""
    message = pb.Batch(
        agent_id=batch.agent_id,
        epoch=batch.epoch,
        sequence=batch.sequence,
        table=batch.table,
        arrow_ipc=batch.arrow_ipc,
        given_up=batch.given_up,
    )
    return bytes(message.SerializeToString())


def decode_batch(data: bytes) -> Batch:
    """The Batch in these bytes; MalformedMessage if there is none, or it has no key."""
    m = _parse(pb.Batch, data)
    if not m.agent_id or not m.table or not m.sequence:
        raise MalformedMessage("a batch needs agent_id, sequence (from 1) and table")
    return Batch(m.agent_id, m.epoch, m.sequence, m.table, m.arrow_ipc, m.given_up)


def encode_ack(ack: Ack) -> bytes:
    """An Ack as protobuf bytes."""
    return bytes(pb.Ack(**_fields(ack)).SerializeToString())


def decode_ack(data: bytes) -> Ack:
    """The Ack in these bytes."""
    ack: Ack = _record(Ack, _parse(pb.Ack, data))
    return ack


# name of the oneof field -> (record, protobuf message)
_FROM_AGENT: dict[str, tuple[type[Any], Any]] = {
    "hello": (Hello, pb.Hello),
    "heartbeat": (Heartbeat, pb.Heartbeat),
    "progress": (JobProgress, pb.JobProgress),
    "offer": (Offer, pb.Offer),
    "renewal": (Renewal, pb.Renewal),
}
_FROM_COLLECTOR: dict[str, tuple[type[Any], Any]] = {
    "welcome": (Welcome, pb.Welcome),
    "assignment": (Assignment, pb.Assignment),
    "cancellation": (Cancellation, pb.Cancellation),
    "renewed": (Renewed, pb.Renewed),
    "settled": (Settled, pb.Settled),
    "separation": (Separation, pb.Separation),
}
# records inside others
_INSIDE: dict[type[Any], Any] = {DeviceOffer: pb.DeviceOffer, Label: pb.Label, Lease: pb.Lease}


def _fields(record: Any) -> dict[str, Any]:
    def value(found: Any) -> Any:
        if isinstance(found, tuple):
            return [value(each) for each in found]
        inside = _INSIDE.get(type(found))
        return found if inside is None else inside(**_fields(found))

    return {name: value(getattr(record, name)) for name in record.__dataclass_fields__}


def _record(kind: type[Any], message: Message) -> Any:
    def value(found: Any) -> Any:
        if isinstance(found, str | bytes | int | float):
            return found
        if isinstance(found, Message):
            inside = next(record for record, known in _INSIDE.items() if isinstance(found, known))
            return _record(inside, found)
        return tuple(value(each) for each in found)

    return kind(**{name: value(getattr(message, name)) for name in kind.__dataclass_fields__})


def _wrap(record: Any, kinds: dict[str, tuple[type[Any], Any]], envelope: Any) -> bytes:
    for field, (kind, message) in kinds.items():
        if isinstance(record, kind):
            return bytes(envelope(**{field: message(**_fields(record))}).SerializeToString())
    raise TypeError(f"{type(record).__name__} does not travel on this stream")


def _unwrap(data: bytes, kinds: dict[str, tuple[type[Any], Any]], envelope: Any) -> Any:
    message = _parse(envelope, data)
    field = message.WhichOneof("kind")
    if field is None:
        raise MalformedMessage(f"a {message.DESCRIPTOR.full_name} message without content")
    return _record(kinds[field][0], getattr(message, field))


def encode_agent_message(record: AgentMessage) -> bytes:
    """What an agent says on Attach as protobuf bytes."""
    return _wrap(record, _FROM_AGENT, pb.AgentMessage)


def decode_agent_message(data: bytes) -> AgentMessage:
    """What an agent said on Attach."""
    record: AgentMessage = _unwrap(data, _FROM_AGENT, pb.AgentMessage)
    return record


def encode_collector_message(record: CollectorMessage) -> bytes:
    """What the collector says on Attach as protobuf bytes."""
    return _wrap(record, _FROM_COLLECTOR, pb.CollectorMessage)


def decode_collector_message(data: bytes) -> CollectorMessage:
    """What the collector said on Attach."""
    record: CollectorMessage = _unwrap(data, _FROM_COLLECTOR, pb.CollectorMessage)
    return record


def encode_filter(record: Filter) -> bytes:
    """The request of a listing; one shape serves models and hardware."""
    return bytes(pb.ListModelsRequest(filter=record.text).SerializeToString())


def decode_filter(data: bytes) -> Filter:
    """The request of a listing."""
    return Filter(_parse(pb.ListModelsRequest, data).filter)


def encode_names(names: Sequence[str]) -> bytes:
    """The answer of a listing of models or hardware."""
    return bytes(pb.ListModelsResponse(names=names).SerializeToString())


def decode_names(data: bytes) -> list[str]:
    """The answer of a listing of models or hardware."""
    return list(_parse(pb.ListModelsResponse, data).names)


def encode_agents(agents: Sequence[AgentStatus]) -> bytes:
    """The answer of ListAgents."""
    return bytes(
        pb.ListAgentsResponse(agents=[pb.Agent(**_fields(agent)) for agent in agents]).SerializeToString()
    )


def decode_agents(data: bytes) -> list[AgentStatus]:
    """The answer of ListAgents."""
    return [_record(AgentStatus, agent) for agent in _parse(pb.ListAgentsResponse, data).agents]


def encode_collector(info: CollectorInfo) -> bytes:
    """The answer of GetCollector."""
    return bytes(pb.CollectorInfo(**_fields(info)).SerializeToString())


def decode_collector(data: bytes) -> CollectorInfo:
    """The answer of GetCollector."""
    info: CollectorInfo = _record(CollectorInfo, _parse(pb.CollectorInfo, data))
    return info


def encode_jobs(jobs: Sequence[Job]) -> bytes:
    """The answer of SubmitJob and ListJobs."""
    return bytes(pb.ListJobsResponse(jobs=[pb.Job(**_fields(job)) for job in jobs]).SerializeToString())


def decode_jobs(data: bytes) -> list[Job]:
    """The answer of SubmitJob and ListJobs."""
    return [_record(Job, job) for job in _parse(pb.ListJobsResponse, data).jobs]


def encode_job(job: Job) -> bytes:
    """The answer of CancelJob."""
    return bytes(pb.Job(**_fields(job)).SerializeToString())


def decode_job(data: bytes) -> Job:
    """The answer of CancelJob."""
    job: Job = _record(Job, _parse(pb.Job, data))
    return job


def encode_submission(submission: Submission) -> bytes:
    """The request of SubmitJob."""
    return bytes(pb.SubmitJobRequest(**_fields(submission)).SerializeToString())


def decode_submission(data: bytes) -> Submission:
    """The request of SubmitJob; MalformedMessage if it has no id or asks for nothing."""
    submission: Submission = _record(Submission, _parse(pb.SubmitJobRequest, data))
    if not submission.submission_id or not submission.requests:
        raise MalformedMessage("a submission needs a submission_id and at least one request")
    return submission


def encode_job_id(job: JobId) -> bytes:
    """The request of CancelJob."""
    return bytes(pb.CancelJobRequest(job_id=job.job_id).SerializeToString())


def decode_job_id(data: bytes) -> JobId:
    """The request of CancelJob; MalformedMessage if it names no job."""
    job: JobId = _record(JobId, _parse(pb.CancelJobRequest, data))
    if not job.job_id:
        raise MalformedMessage("a job is named by its job_id")
    return job


def encode_jobs_asked(asked: JobsAsked) -> bytes:
    """The request of ListJobs."""
    return bytes(pb.ListJobsRequest(**_fields(asked)).SerializeToString())


def decode_jobs_asked(data: bytes) -> JobsAsked:
    """The request of ListJobs."""
    asked: JobsAsked = _record(JobsAsked, _parse(pb.ListJobsRequest, data))
    return asked


def encode_host_labels(labels: HostLabels) -> bytes:
    """The request of LabelHost."""
    return bytes(pb.LabelHostRequest(**_fields(labels)).SerializeToString())


def decode_host_labels(data: bytes) -> HostLabels:
    """The request of LabelHost; MalformedMessage if it names no host."""
    labels: HostLabels = _record(HostLabels, _parse(pb.LabelHostRequest, data))
    if not labels.host:
        raise MalformedMessage("labels are for a host: give its name or id")
    return labels


def encode_labels(labels: Sequence[Label]) -> bytes:
    """The answer of LabelHost."""
    return bytes(
        pb.LabelHostResponse(labels=[pb.Label(**_fields(one)) for one in labels]).SerializeToString()
    )


def decode_labels(data: bytes) -> list[Label]:
    """The answer of LabelHost."""
    return [_record(Label, one) for one in _parse(pb.LabelHostResponse, data).labels]


def encode_run_change(change: RunChange) -> bytes:
    """The request of ChangeRun."""
    return bytes(pb.ChangeRunRequest(**_fields(change)).SerializeToString())


def decode_run_change(data: bytes) -> RunChange:
    """The request of ChangeRun; MalformedMessage if it names no run."""
    m = _parse(pb.ChangeRunRequest, data)
    if not m.run_id:
        raise MalformedMessage("a change needs the run_id of a run")
    name, note, pinned = (
        getattr(m, field) if m.HasField(field) else None for field in ("name", "note", "pinned")
    )
    return RunChange(m.run_id, name, note, tuple(m.add_tags), tuple(m.remove_tags), pinned)


def encode_found(found: bool) -> bytes:
    """The answer of ChangeRun."""
    return bytes(pb.ChangeRunResponse(found=found).SerializeToString())


def decode_found(data: bytes) -> bool:
    """The answer of ChangeRun."""
    return bool(_parse(pb.ChangeRunResponse, data).found)


def encode_run_ids(runs: RunIds) -> bytes:
    """The request and the answer of DeleteRuns, which have one shape."""
    return bytes(pb.DeleteRunsRequest(run_ids=runs.run_ids).SerializeToString())


def decode_run_ids(data: bytes) -> RunIds:
    """The request and the answer of DeleteRuns."""
    return RunIds(tuple(_parse(pb.DeleteRunsRequest, data).run_ids))


def encode_join(request: JoinRequest) -> bytes:
    """The request of Join."""
    return bytes(keys_pb.JoinRequest(**_fields(request)).SerializeToString())


def decode_join(data: bytes) -> JoinRequest:
    """The request of Join."""
    request: JoinRequest = _record(JoinRequest, _parse(keys_pb.JoinRequest, data))
    return request


def encode_joined(joined: Joined) -> bytes:
    """The answer of Join."""
    return bytes(keys_pb.JoinResponse(**_fields(joined)).SerializeToString())


def decode_joined(data: bytes) -> Joined:
    """The answer of Join."""
    joined: Joined = _record(Joined, _parse(keys_pb.JoinResponse, data))
    return joined


def encode_nothing(_: None) -> bytes:
    """A request that says no more than its name."""
    return b""


def decode_nothing(_: bytes) -> None:
    """A request that says no more than its name."""


def encode_backup(done: BackupDone) -> bytes:
    """The answer of Backup."""
    return bytes(pb.BackupResponse(**_fields(done)).SerializeToString())


def decode_backup(data: bytes) -> BackupDone:
    """The answer of Backup."""
    done: BackupDone = _record(BackupDone, _parse(pb.BackupResponse, data))
    return done


def encode_rows(rows: pa.Table | pa.RecordBatch) -> bytes:
    """Arrow rows as one IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write(rows)
    return bytes(sink.getvalue())


def decode_rows(data: bytes, table: Table) -> pa.Table:
    """The rows of an IPC stream, checked against the table.

    An older agent does not know every column: one that is not required and not there is NULL. Raises
    MalformedMessage if the bytes are not one complete stream or decode to more than MAX_ROWS_BYTES, if the
    schema is not the table's otherwise, or if a required column holds NULL.
    """
    try:
        rows = read_stream(data, max_bytes=MAX_ROWS_BYTES)
    except MalformedMessage as error:
        raise MalformedMessage(f"rows for {table.name}: {error}") from error
    if not rows.schema.equals(table.schema):
        rows = _completed(rows, table)
    for column, values in zip(table.columns, rows.columns, strict=True):
        if column.required and values.null_count:
            raise MalformedMessage(f"{table.name}.{column.name} is required and holds NULL")
    return rows


def _completed(rows: pa.Table, table: Table) -> pa.Table:
    """The rows with the columns an older sender did not know; MalformedMessage if they differ otherwise."""
    theirs = [name for name in table.schema.names if name in rows.column_names]
    same_order = rows.column_names == theirs  # and so each once
    same_types = same_order and all(
        rows.schema.field(name).type == table.schema.field(name).type for name in theirs
    )
    all_required = all(c.name in theirs for c in table.columns if c.required)
    if not (same_types and all_required):
        raise MalformedMessage(_schema_difference(rows.schema, table))
    columns = [
        rows.column(field.name) if field.name in theirs else pa.nulls(rows.num_rows, field.type)
        for field in table.schema
    ]
    return pa.table(columns, schema=table.schema)


def _schema_difference(schema: pa.Schema, table: Table) -> str:
    wrong = [f"{name} is there {n} times" for name, n in Counter(schema.names).items() if n > 1]
    for field in table.schema:
        place = schema.get_field_index(field.name)
        if field.name not in schema.names:
            wrong.append(f"{field.name} is missing")
        elif place < 0:
            continue  # there more than once
        elif not schema.field(place).equals(field):
            wrong.append(f"{field.name} is {schema.field(place)}, expected {field}")
    known = set(table.schema.names)
    wrong += [f"{name} is not known" for name in schema.names if name not in known]
    return f"rows for {table.name} have another schema: {'; '.join(wrong) or 'columns in another order'}"
