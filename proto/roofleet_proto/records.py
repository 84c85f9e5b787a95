"""The messages of the three services as frozen records; protobuf does not pass the codec."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one table under the key that makes them arrive exactly once.

    `arrow_ipc` is one Arrow IPC stream whose schema is the table's. With `given_up` the rows are gone, and
    the answer tells whether they had been stored.
    """

    agent_id: str
    epoch: int
    sequence: int
    table: str
    arrow_ipc: bytes
    given_up: bool = False

    @property
    def key(self) -> tuple[str, int, int]:
        """What the collector remembers it by."""
        return (self.agent_id, self.epoch, self.sequence)


@dataclass(frozen=True, slots=True)
class Ack:
    """The collector's word that a batch is committed; `duplicate` if it was so before.

    Of its rows `rejected_rows` were set aside, since they break what a column takes. With `foreign` nothing
    was stored: another batch has this key, so two agents go by one identity.
    """

    agent_id: str
    epoch: int
    sequence: int
    duplicate: bool = False
    rejected_rows: int = 0
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of an agent on Attach; `sent_unix_us` is its clock, 0 where it does not say."""

    agent_id: str
    host_id: str
    hostname: str
    agent_version: str
    sent_unix_us: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """An agent is alive and holds so many batches that are not acknowledged; its clock as in Hello."""

    spooled_batches: int
    sent_unix_us: int = 0


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is, as a fraction from 0 to 1, or how it ended.

    `token` is that of the lease under which it runs, `log_tail` the last of what the model process printed.
    """

    job_id: str
    status: str
    fraction: float
    message: str
    token: int = 0
    run_id: str = ""
    error: str = ""
    log_tail: str = ""


@dataclass(frozen=True, slots=True)
class DeviceOffer:
    """A device that takes jobs; `memory_bytes` is 0 where it is not known."""

    device_id: str
    kind: str
    name: str
    backend: str
    device_index: int
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Label:
    """A word about a host, such as its site."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What an agent takes jobs for."""

    devices: tuple[DeviceOffer, ...]
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """A job that an agent may run; the token grows with every lease of a job."""

    job_id: str
    token: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """The leases that an agent wants to keep; `number` is answered."""

    number: int
    leases: tuple[Lease, ...]


AgentMessage = Hello | Heartbeat | JobProgress | Offer | Renewal


@dataclass(frozen=True, slots=True)
class Welcome:
    """The collector took the agent in and wants a heartbeat every so many milliseconds."""

    collector_version: str
    heartbeat_ms: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job for a device of this agent; `request` is its JSON. It begins when its lease has been renewed."""

    job_id: str
    request: str
    token: int = 0
    device_id: str = ""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A job this agent is to end."""

    job_id: str
    token: int = 0


@dataclass(frozen=True, slots=True)
class Renewed:
    """The leases that hold for `lease_ms` from when renewal `number` was sent; those it lacks have ended."""

    number: int
    lease_ms: int
    leases: tuple[Lease, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """How a job ended is stored, or refused because its lease had ended: the agent forgets it."""

    job_id: str
    token: int
    accepted: bool


@dataclass(frozen=True, slots=True)
class Separation:
    """Another agent goes by the same identity, such as on a copy of this machine: take a new one."""


CollectorMessage = Welcome | Assignment | Cancellation | Renewed | Settled | Separation


@dataclass(frozen=True, slots=True)
class CollectorInfo:
    """A collector's version and the port of its SQL, on the host it was reached at."""

    version: str
    sql_port: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job as Control reports it; times in microseconds since 1970, UTC, 0 where it has not come to that."""

    job_id: str
    request: str
    status: str
    error: str = ""
    selector: str = ""
    hostname: str = ""
    device_name: str = ""
    agent_id: str = ""
    device_id: str = ""
    run_id: str = ""
    sweep_id: str = ""
    token: int = 0
    stage: str = ""
    fraction: float = 0.0
    log_tail: str = ""
    submitted_unix_us: int = 0
    started_unix_us: int = 0
    finished_unix_us: int = 0


@dataclass(frozen=True, slots=True)
class Submission:
    """Jobs to be: `count` of each request on devices that fit the selector.

    The client makes `submission_id`; the same again submits nothing more. `sweep` is the JSON of the axes if
    the requests are the points of a sweep.
    """

    submission_id: str
    requests: tuple[str, ...]
    selector: str
    count: int = 1
    sweep: str = ""


@dataclass(frozen=True, slots=True)
class JobId:
    """A job that is meant, or the beginning of its id."""

    job_id: str


@dataclass(frozen=True, slots=True)
class JobsAsked:
    """Which jobs are to be listed: by ids or their beginnings, all without; `limit` 0 is the collector's."""

    job_ids: tuple[str, ...] = ()
    open_only: bool = False
    limit: int = 0


@dataclass(frozen=True, slots=True)
class HostLabels:
    """What the operator says of a host, given by its name or id: labels to set, and names to take away."""

    host: str
    set: tuple[Label, ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """An attached agent; `last_seen_unix_us` in microseconds since 1970, UTC."""

    agent_id: str
    host_id: str
    hostname: str
    agent_version: str
    last_seen_unix_us: int
    spooled_batches: int


@dataclass(frozen=True, slots=True)
class RunChange:
    """What is to be said of a run; None leaves it as it was, an empty text takes it away.

    One that is pinned outlives retention.
    """

    run_id: str
    name: str | None = None
    note: str | None = None
    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()
    pinned: bool | None = None


@dataclass(frozen=True, slots=True)
class RunIds:
    """Runs that are to be deleted, or that were."""

    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A one-time code, and the agent that is to get a token for it."""

    code: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class Joined:
    """The token of an agent, what the operator called its host, and, with TLS, the authority of the
    collector's certificate in PEM."""

    token: str
    name: str
    authority: str = ""


@dataclass(frozen=True, slots=True)
class BackupDone:
    """Where a copy of what is stored lies on the collector's machine, and how many batches it holds."""

    path: str
    batches: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Text that the names of a listing must contain; empty for all."""

    text: str = ""
