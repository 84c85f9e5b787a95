"""Records and rows survive their encoding, and bytes that are neither are named as such."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.any_rows import table_rows
from tests.support import spans

from roofleet_proto import codec
from roofleet_proto.records import (
    Ack,
    AgentStatus,
    Assignment,
    Batch,
    Cancellation,
    CollectorInfo,
    DeviceOffer,
    Filter,
    Heartbeat,
    Hello,
    HostLabels,
    Job,
    JobId,
    JobProgress,
    JobsAsked,
    Label,
    Lease,
    Offer,
    Renewal,
    Renewed,
    Separation,
    Settled,
    Submission,
    Welcome,
)
from roofleet_proto.tables import TABLES

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
counts = st.integers(0, 2**64 - 1)
batches = st.builds(
    Batch, names, counts, st.integers(1, 2**64 - 1), names, st.binary(max_size=64), st.booleans()
)
labels = st.builds(Label, names, names)
devices = st.builds(DeviceOffer, names, names, names, names, st.integers(0, 2**32 - 1), st.integers(0, 2**62))
leases = st.lists(st.builds(Lease, names, counts), max_size=3).map(tuple)
agent_messages = st.one_of(
    st.builds(Hello, names, names, names, names),
    st.builds(Heartbeat, counts),
    st.builds(JobProgress, names, names, st.floats(0, 1), names, counts, names, names, names),
    st.builds(Offer, st.lists(devices, max_size=2).map(tuple), st.lists(labels, max_size=2).map(tuple)),
    st.builds(Renewal, counts, leases),
)
collector_messages = st.one_of(
    st.builds(Welcome, names, st.integers(0, 2**32 - 1)),
    st.builds(Assignment, names, names, counts, names),
    st.builds(Cancellation, names, counts),
    st.builds(Renewed, counts, st.integers(0, 2**32 - 1), leases),
    st.builds(Settled, names, counts, st.booleans()),
    st.just(Separation()),
)


@given(batches)
def test_a_batch_survives_its_encoding(batch: Batch) -> None:
    """decode(encode(batch)) is the batch."""
    assert codec.decode_batch(codec.encode_batch(batch)) == batch


@given(st.builds(Ack, names, counts, counts, st.booleans(), counts, st.booleans()))
def test_an_acknowledgement_survives_its_encoding(ack: Ack) -> None:
    """decode(encode(ack)) is the ack."""
    assert codec.decode_ack(codec.encode_ack(ack)) == ack


@given(agent_messages)
def test_what_an_agent_says_survives_its_encoding(message: Hello) -> None:
    """Every message of an agent on Attach comes out as it went in."""
    assert codec.decode_agent_message(codec.encode_agent_message(message)) == message


@given(collector_messages)
def test_what_a_collector_says_survives_its_encoding(message: Welcome) -> None:
    """Every message of the collector on Attach comes out as it went in."""
    assert codec.decode_collector_message(codec.encode_collector_message(message)) == message


@given(
    st.lists(st.builds(AgentStatus, names, names, names, names, st.integers(0, 2**62), counts), max_size=3),
    st.lists(names, max_size=3),
    st.lists(st.builds(Job, names, names, names, names), max_size=3),
    names,
    st.integers(0, 65_535),
)
def test_the_answers_of_control_survive_their_encoding(
    agents: list[AgentStatus], listed: list[str], jobs: list[Job], text: str, port: int
) -> None:
    """Listings, their filter and the collector's description come out as they went in."""
    assert codec.decode_agents(codec.encode_agents(agents)) == agents
    assert codec.decode_names(codec.encode_names(listed)) == listed
    assert codec.decode_jobs(codec.encode_jobs(jobs)) == jobs
    assert codec.decode_filter(codec.encode_filter(Filter(text))) == Filter(text)
    info = CollectorInfo(text, port)
    assert codec.decode_collector(codec.encode_collector(info)) == info


@given(
    st.builds(
        Submission,
        names.filter(bool),
        st.lists(names, min_size=1, max_size=3).map(tuple),
        names,
        st.integers(0, 2**32 - 1),
        names,
    ),
    st.builds(JobsAsked, st.lists(names, max_size=3).map(tuple), st.booleans(), st.integers(0, 2**32 - 1)),
    st.builds(JobId, names.filter(bool)),
    st.builds(
        HostLabels,
        names.filter(bool),
        st.lists(labels, max_size=2).map(tuple),
        st.lists(names, max_size=2).map(tuple),
    ),
    st.builds(Job, *[names] * 11, counts, names, st.floats(0, 1), names, *[st.integers(0, 2**62)] * 3),
)
def test_what_is_asked_of_jobs_survives_its_encoding(
    submission: Submission, asked: JobsAsked, job_id: JobId, host: HostLabels, job: Job
) -> None:
    """Submissions, listings, cancellations and labels come out as they went in."""
    assert codec.decode_submission(codec.encode_submission(submission)) == submission
    assert codec.decode_jobs_asked(codec.encode_jobs_asked(asked)) == asked
    assert codec.decode_job_id(codec.encode_job_id(job_id)) == job_id
    assert codec.decode_host_labels(codec.encode_host_labels(host)) == host
    assert codec.decode_labels(codec.encode_labels(host.set)) == list(host.set)
    assert codec.decode_job(codec.encode_job(job)) == job


@given(st.data())
def test_rows_survive_their_encoding(data: st.DataObject) -> None:
    """Rows of every table come out of Arrow IPC equal, NULLs included."""
    name = data.draw(st.sampled_from(sorted(TABLES)))
    rows = data.draw(table_rows(name))
    assert codec.decode_rows(codec.encode_rows(rows), TABLES[name]).equals(rows)


@given(batches, st.integers(1, 200))
def test_a_truncated_batch_is_malformed(batch: Batch, cut: int) -> None:
    """A batch that lost its end is refused, or has lost nothing that it needs."""
    data = codec.encode_batch(batch)
    try:
        found = codec.decode_batch(data[:-cut])
    except codec.MalformedMessage:
        return
    assert (found.agent_id, found.sequence, found.table) == (batch.agent_id, batch.sequence, batch.table)


def test_a_batch_without_a_key_is_malformed() -> None:
    """A batch must say whose it is and which."""
    with pytest.raises(codec.MalformedMessage, match="agent_id"):
        codec.decode_batch(codec.encode_batch(Batch("", 1, 1, "spans", b"")))


def test_an_empty_message_on_attach_is_malformed() -> None:
    """A message of no kind is not taken for one."""
    with pytest.raises(codec.MalformedMessage, match="without content"):
        codec.decode_agent_message(b"")


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_truncated_rows_are_malformed(cut: int) -> None:
    """Rows that lost their end are refused."""
    data = codec.encode_rows(spans(100))
    with pytest.raises(codec.MalformedMessage, match="Arrow IPC stream"):
        codec.decode_rows(data[: len(data) // 2 - cut], TABLES["spans"])


def test_a_difference_of_schema_is_told_column_by_column() -> None:
    """The message names what is missing, what is not known and what has another type."""
    rows = spans(1).drop_columns(["path"]).append_column("colour", pa.array(["red"]))
    rows = rows.set_column(0, "run_id", pa.array([1]))
    with pytest.raises(codec.MalformedMessage) as caught:
        codec.decode_rows(codec.encode_rows(rows), TABLES["spans"])
    for part in ("path is missing", "colour is not known", "run_id is"):
        assert part in str(caught.value)


def test_a_required_column_does_not_take_null() -> None:
    """NULL in a required column is refused even where the writer calls the column nullable."""
    schema = TABLES["spans"].schema
    nulls = {name: [None] if name == "path" else spans(1).column(name).to_pylist() for name in schema.names}
    rows = pa.Table.from_pydict(nulls, schema=pa.schema([f.with_nullable(True) for f in schema]))
    forged = pa.Table.from_arrays(rows.columns, schema=schema)
    with pytest.raises(codec.MalformedMessage, match=r"spans\.path is required"):
        codec.decode_rows(codec.encode_rows(forged), TABLES["spans"])


def test_columns_an_older_agent_does_not_know_are_null() -> None:
    """A spool of the release before is taken: what came later is unknown in it, not a reason to refuse."""
    rows = spans(2).drop_columns(["inner_calls"])
    older = pa.schema([f.with_nullable(False) for f in rows.schema])
    rows = pa.Table.from_arrays(rows.columns, schema=older)
    found = codec.decode_rows(codec.encode_rows(rows), TABLES["spans"])
    assert found.schema.equals(TABLES["spans"].schema)
    assert found.column("inner_calls").null_count == 2
    assert found.column("self_ns").to_pylist() == rows.column("self_ns").to_pylist()
