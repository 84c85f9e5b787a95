"""The trace pass: which ops a step executes, with shapes, on the meta device."""

from roofleet_agent.tracing.layers import Layer, layers_of
from roofleet_agent.tracing.records import Edge, TracedOp, TracedTensor, TraceResult
from roofleet_agent.tracing.tracer import trace

__all__ = [
    "Edge",
    "Layer",
    "TraceResult",
    "TracedOp",
    "TracedTensor",
    "layers_of",
    "trace",
]
