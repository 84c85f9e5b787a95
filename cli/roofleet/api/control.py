"""What people and scripts ask of a collector over gRPC: jobs and agents."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from roofleet.api.client import ServerAway
from roofleet.errors import UserError
from roofleet.naming.doors import door
from roofleet_agent.sending.uplink import open_channel
from roofleet_proto import services
from roofleet_proto.door import Door
from roofleet_proto.jobs import OPEN
from roofleet_proto.records import AgentStatus, Filter, HostLabels, Job, JobId, JobsAsked, Label, Submission

if TYPE_CHECKING:
    from roofleet_proto.jobs import JobRequest
    from roofleet_proto.services import Method

ANSWER_S = 30.0
_ASKED_WRONGLY = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
)


class Control:
    """A collector at HOST:PORT. Every method raises UserError for what cannot be, ServerAway if nobody
    answers."""

    def __init__(self, address: str, way: Door | None = None) -> None:
        self.address = address
        self._channel: Any = open_channel(address, way or door())

    def submit(
        self,
        requests: Iterable[JobRequest],
        selector: str,
        *,
        count: int = 1,
        sweep: str = "",
        submission_id: str | None = None,
    ) -> list[Job]:
        """Hands in jobs: `count` of each request on devices that fit the selector.

        With a `submission_id` of your own the same submission can be repeated, and makes its jobs once.
        """
        wanted = Submission(
            submission_id or str(uuid.uuid4()), tuple(one.text() for one in requests), selector, count, sweep
        )
        jobs: list[Job] = self._ask(services.SUBMIT_JOB, wanted, again=True)
        return jobs

    def cancel(self, job_id: str) -> Job:
        """Ends a job, given by its id or the beginning of one."""
        job: Job = self._ask(services.CANCEL_JOB, JobId(job_id))
        return job

    def jobs(self, job_ids: Sequence[str] = (), *, open_only: bool = False, limit: int = 0) -> list[Job]:
        """Jobs, the latest first."""
        asked = JobsAsked(tuple(job_ids), open_only, limit)
        jobs: list[Job] = self._ask(services.LIST_JOBS, asked, again=True)
        return jobs

    def agents(self) -> list[AgentStatus]:
        """The attached agents."""
        agents: list[AgentStatus] = self._ask(services.LIST_AGENTS, Filter(), again=True)
        return agents

    def label(self, host: str, labels: Iterable[Label], remove: Iterable[str] = ()) -> list[Label]:
        """Sets and takes away labels of a host; all that it has of the operator then."""
        found: list[Label] = self._ask(services.LABEL_HOST, HostLabels(host, tuple(labels), tuple(remove)))
        return found

    def close(self) -> None:
        """Lets go."""
        self._channel.close()

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: Method, request: Any, *, again: bool = False) -> Any:
        """The answer; what does no harm twice is asked `again` if the connection breaks."""
        for attempt in (1, 2):
            try:
                return method.client(self._channel)(request, timeout=ANSWER_S)
            except grpc.RpcError as error:
                if error.code() in _ASKED_WRONGLY:
                    raise UserError(error.details()) from None
                if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                    raise UserError(
                        f"the collector at {self.address} is too old for this: update it"
                    ) from None
                if again and attempt == 1 and error.code() == grpc.StatusCode.UNAVAILABLE:
                    continue
                if _CANNOT_STORE in (error.details() or ""):
                    raise ServerAway(f"{error.details()} (at {self.address})") from None
                raise ServerAway(
                    f"no collector answers at {self.address} ({error.details()}). Start one with "
                    "`roofleet collector`, or name another with --collector HOST:PORT"
                ) from None
        raise AssertionError("unreachable")


_CANNOT_STORE = "the collector could not store that"
"""What one says that is there, and whose disk is full."""


def has_ended(job: Job) -> bool:
    """Whether nothing more comes of a job."""
    return job.status not in OPEN
