"""The trace pass: which ops a step executes, with shapes, on the meta device."""

from roofleet_agent.tracing.layers import Layer, layers_of
from roofleet_agent.tracing.tracer import Edge, TracedOp, TracedTensor, TraceResult, restated, trace

__all__ = ["Edge", "Layer", "TraceResult", "TracedOp", "TracedTensor", "layers_of", "restated", "trace"]
