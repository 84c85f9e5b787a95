from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Batch(_message.Message):
    __slots__ = ("agent_id", "epoch", "sequence", "table", "arrow_ipc", "given_up")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    ARROW_IPC_FIELD_NUMBER: _ClassVar[int]
    GIVEN_UP_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    epoch: int
    sequence: int
    table: str
    arrow_ipc: bytes
    given_up: bool
    def __init__(self, agent_id: _Optional[str] = ..., epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., table: _Optional[str] = ..., arrow_ipc: _Optional[bytes] = ..., given_up: bool = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("agent_id", "epoch", "sequence", "duplicate", "rejected_rows", "foreign")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    REJECTED_ROWS_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    epoch: int
    sequence: int
    duplicate: bool
    rejected_rows: int
    foreign: bool
    def __init__(self, agent_id: _Optional[str] = ..., epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., duplicate: bool = ..., rejected_rows: _Optional[int] = ..., foreign: bool = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("agent_id", "host_id", "hostname", "agent_version", "sent_unix_us")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    SENT_UNIX_US_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    host_id: str
    hostname: str
    agent_version: str
    sent_unix_us: int
    def __init__(self, agent_id: _Optional[str] = ..., host_id: _Optional[str] = ..., hostname: _Optional[str] = ..., agent_version: _Optional[str] = ..., sent_unix_us: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("spooled_batches", "sent_unix_us")
    SPOOLED_BATCHES_FIELD_NUMBER: _ClassVar[int]
    SENT_UNIX_US_FIELD_NUMBER: _ClassVar[int]
    spooled_batches: int
    sent_unix_us: int
    def __init__(self, spooled_batches: _Optional[int] = ..., sent_unix_us: _Optional[int] = ...) -> None: ...

class JobProgress(_message.Message):
    __slots__ = ("job_id", "status", "fraction", "message", "token", "run_id", "error", "log_tail")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    status: str
    fraction: float
    message: str
    token: int
    run_id: str
    error: str
    log_tail: str
    def __init__(self, job_id: _Optional[str] = ..., status: _Optional[str] = ..., fraction: _Optional[float] = ..., message: _Optional[str] = ..., token: _Optional[int] = ..., run_id: _Optional[str] = ..., error: _Optional[str] = ..., log_tail: _Optional[str] = ...) -> None: ...

class DeviceOffer(_message.Message):
    __slots__ = ("device_id", "kind", "name", "backend", "device_index", "memory_bytes")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    DEVICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    kind: str
    name: str
    backend: str
    device_index: int
    memory_bytes: int
    def __init__(self, device_id: _Optional[str] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ..., backend: _Optional[str] = ..., device_index: _Optional[int] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class Label(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("devices", "labels")
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceOffer]
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    def __init__(self, devices: _Optional[_Iterable[_Union[DeviceOffer, _Mapping]]] = ..., labels: _Optional[_Iterable[_Union[Label, _Mapping]]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("job_id", "token")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    token: int
    def __init__(self, job_id: _Optional[str] = ..., token: _Optional[int] = ...) -> None: ...

class Renewal(_message.Message):
    __slots__ = ("number", "leases")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    number: int
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    def __init__(self, number: _Optional[int] = ..., leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ...) -> None: ...

class AgentMessage(_message.Message):
    __slots__ = ("hello", "heartbeat", "progress", "offer", "renewal")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    RENEWAL_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    heartbeat: Heartbeat
    progress: JobProgress
    offer: Offer
    renewal: Renewal
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., progress: _Optional[_Union[JobProgress, _Mapping]] = ..., offer: _Optional[_Union[Offer, _Mapping]] = ..., renewal: _Optional[_Union[Renewal, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("collector_version", "heartbeat_ms")
    COLLECTOR_VERSION_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    collector_version: str
    heartbeat_ms: int
    def __init__(self, collector_version: _Optional[str] = ..., heartbeat_ms: _Optional[int] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("job_id", "request", "token", "device_id")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    request: str
    token: int
    device_id: str
    def __init__(self, job_id: _Optional[str] = ..., request: _Optional[str] = ..., token: _Optional[int] = ..., device_id: _Optional[str] = ...) -> None: ...

class Cancellation(_message.Message):
    __slots__ = ("job_id", "token")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    token: int
    def __init__(self, job_id: _Optional[str] = ..., token: _Optional[int] = ...) -> None: ...

class Renewed(_message.Message):
    __slots__ = ("number", "lease_ms", "leases")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    number: int
    lease_ms: int
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    def __init__(self, number: _Optional[int] = ..., lease_ms: _Optional[int] = ..., leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ...) -> None: ...

class Settled(_message.Message):
    __slots__ = ("job_id", "token", "accepted")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    token: int
    accepted: bool
    def __init__(self, job_id: _Optional[str] = ..., token: _Optional[int] = ..., accepted: bool = ...) -> None: ...

class Separation(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CollectorMessage(_message.Message):
    __slots__ = ("welcome", "assignment", "cancellation", "renewed", "settled", "separation")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    CANCELLATION_FIELD_NUMBER: _ClassVar[int]
    RENEWED_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    SEPARATION_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    assignment: Assignment
    cancellation: Cancellation
    renewed: Renewed
    settled: Settled
    separation: Separation
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ..., cancellation: _Optional[_Union[Cancellation, _Mapping]] = ..., renewed: _Optional[_Union[Renewed, _Mapping]] = ..., settled: _Optional[_Union[Settled, _Mapping]] = ..., separation: _Optional[_Union[Separation, _Mapping]] = ...) -> None: ...

class GetCollectorRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CollectorInfo(_message.Message):
    __slots__ = ("version", "sql_port")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SQL_PORT_FIELD_NUMBER: _ClassVar[int]
    version: str
    sql_port: int
    def __init__(self, version: _Optional[str] = ..., sql_port: _Optional[int] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("job_id", "request", "status", "error", "selector", "hostname", "device_name", "agent_id", "device_id", "run_id", "sweep_id", "token", "stage", "fraction", "log_tail", "submitted_unix_us", "started_unix_us", "finished_unix_us")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SWEEP_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_UNIX_US_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_US_FIELD_NUMBER: _ClassVar[int]
    FINISHED_UNIX_US_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    request: str
    status: str
    error: str
    selector: str
    hostname: str
    device_name: str
    agent_id: str
    device_id: str
    run_id: str
    sweep_id: str
    token: int
    stage: str
    fraction: float
    log_tail: str
    submitted_unix_us: int
    started_unix_us: int
    finished_unix_us: int
    def __init__(self, job_id: _Optional[str] = ..., request: _Optional[str] = ..., status: _Optional[str] = ..., error: _Optional[str] = ..., selector: _Optional[str] = ..., hostname: _Optional[str] = ..., device_name: _Optional[str] = ..., agent_id: _Optional[str] = ..., device_id: _Optional[str] = ..., run_id: _Optional[str] = ..., sweep_id: _Optional[str] = ..., token: _Optional[int] = ..., stage: _Optional[str] = ..., fraction: _Optional[float] = ..., log_tail: _Optional[str] = ..., submitted_unix_us: _Optional[int] = ..., started_unix_us: _Optional[int] = ..., finished_unix_us: _Optional[int] = ...) -> None: ...

class SubmitJobRequest(_message.Message):
    __slots__ = ("submission_id", "requests", "selector", "count", "sweep")
    SUBMISSION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    submission_id: str
    requests: _containers.RepeatedScalarFieldContainer[str]
    selector: str
    count: int
    sweep: str
    def __init__(self, submission_id: _Optional[str] = ..., requests: _Optional[_Iterable[str]] = ..., selector: _Optional[str] = ..., count: _Optional[int] = ..., sweep: _Optional[str] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("job_ids", "open_only", "limit")
    JOB_IDS_FIELD_NUMBER: _ClassVar[int]
    OPEN_ONLY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    job_ids: _containers.RepeatedScalarFieldContainer[str]
    open_only: bool
    limit: int
    def __init__(self, job_ids: _Optional[_Iterable[str]] = ..., open_only: bool = ..., limit: _Optional[int] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ...) -> None: ...

class ListAgentsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Agent(_message.Message):
    __slots__ = ("agent_id", "host_id", "hostname", "agent_version", "last_seen_unix_us", "spooled_batches")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_UNIX_US_FIELD_NUMBER: _ClassVar[int]
    SPOOLED_BATCHES_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    host_id: str
    hostname: str
    agent_version: str
    last_seen_unix_us: int
    spooled_batches: int
    def __init__(self, agent_id: _Optional[str] = ..., host_id: _Optional[str] = ..., hostname: _Optional[str] = ..., agent_version: _Optional[str] = ..., last_seen_unix_us: _Optional[int] = ..., spooled_batches: _Optional[int] = ...) -> None: ...

class ListAgentsResponse(_message.Message):
    __slots__ = ("agents",)
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    agents: _containers.RepeatedCompositeFieldContainer[Agent]
    def __init__(self, agents: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    filter: str
    def __init__(self, filter: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class ListHardwareRequest(_message.Message):
    __slots__ = ("filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    filter: str
    def __init__(self, filter: _Optional[str] = ...) -> None: ...

class ListHardwareResponse(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class ChangeRunRequest(_message.Message):
    __slots__ = ("run_id", "name", "note", "add_tags", "remove_tags", "pinned")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    ADD_TAGS_FIELD_NUMBER: _ClassVar[int]
    REMOVE_TAGS_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    name: str
    note: str
    add_tags: _containers.RepeatedScalarFieldContainer[str]
    remove_tags: _containers.RepeatedScalarFieldContainer[str]
    pinned: bool
    def __init__(self, run_id: _Optional[str] = ..., name: _Optional[str] = ..., note: _Optional[str] = ..., add_tags: _Optional[_Iterable[str]] = ..., remove_tags: _Optional[_Iterable[str]] = ..., pinned: bool = ...) -> None: ...

class ChangeRunResponse(_message.Message):
    __slots__ = ("found",)
    FOUND_FIELD_NUMBER: _ClassVar[int]
    found: bool
    def __init__(self, found: bool = ...) -> None: ...

class DeleteRunsRequest(_message.Message):
    __slots__ = ("run_ids",)
    RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    run_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteRunsResponse(_message.Message):
    __slots__ = ("run_ids",)
    RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    run_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BackupResponse(_message.Message):
    __slots__ = ("path", "batches")
    PATH_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    path: str
    batches: int
    def __init__(self, path: _Optional[str] = ..., batches: _Optional[int] = ...) -> None: ...

class LabelHostRequest(_message.Message):
    __slots__ = ("host", "set", "remove")
    HOST_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    host: str
    set: _containers.RepeatedCompositeFieldContainer[Label]
    remove: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, host: _Optional[str] = ..., set: _Optional[_Iterable[_Union[Label, _Mapping]]] = ..., remove: _Optional[_Iterable[str]] = ...) -> None: ...

class LabelHostResponse(_message.Message):
    __slots__ = ("labels",)
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    def __init__(self, labels: _Optional[_Iterable[_Union[Label, _Mapping]]] = ...) -> None: ...
