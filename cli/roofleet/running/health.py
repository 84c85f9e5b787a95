"""Whether the collector of a data folder can store rows, as it says itself."""

from __future__ import annotations

from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from roofleet.errors import UNREACHABLE, UserError
from roofleet.naming.doors import here, local_door
from roofleet_agent.sending.uplink import open_channel
from roofleet_collector.presence import running_collector

ANSWER_S = 5.0


def can_store(folder: Path) -> bool:
    """Asks gRPC's health service; UserError if nobody answers there."""
    running = running_collector(folder)
    if running is None:
        raise UserError(f"no collector holds {folder}, or it does not answer", UNREACHABLE)
    with open_channel(here(running.grpc, running), local_door(folder, running)) as channel:
        try:
            said = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=ANSWER_S
            )
        except grpc.RpcError as error:
            raise UserError(
                f"the collector of {folder} does not say how it is: {error.details()}", UNREACHABLE
            ) from None
    return bool(said.status == health_pb2.HealthCheckResponse.SERVING)
