"""What can go wrong in the agent.

AgentError
├── ModelNotFound(LookupError)      no such model, folder or factory
├── ModelRefused(ValueError)        found, but it cannot be used as asked
├── DeviceNotFound(LookupError)     no such device on this host
├── WorkloadRefused(ValueError)     the workload does not fit model or device
├── OutOfMemory(MemoryError)        the device had no room after all
├── JobRefused(ValueError)          a job that the rules of this agent do not allow
├── RulesUnusable(ValueError)       its rules cannot be read
├── AgentRuns(RuntimeError)         another one is attached from the same folder
├── SpoolUnusable(OSError)          rows cannot be kept on disk
└── CollectorUnreachable(ConnectionError)
"""


class AgentError(Exception):
    """Root of the agent's errors; the message says what was given, what was expected and what to do."""


class ModelNotFound(LookupError, AgentError):
    """No such model, folder or factory."""


class ModelRefused(ValueError, AgentError):
    """The model was found but cannot be used as asked."""


class DeviceNotFound(LookupError, AgentError):
    """No such device on this host."""


class WorkloadRefused(ValueError, AgentError):
    """The workload does not fit the model or the device."""


class OutOfMemory(MemoryError, AgentError):
    """The device had no room while the model ran."""


class JobRefused(ValueError, AgentError):
    """The rules of this agent do not allow the job; the message names the rule."""


class RulesUnusable(ValueError, AgentError):
    """The file with the agent's rules cannot be read, or says what is not known."""


class AgentRuns(RuntimeError, AgentError):
    """Another agent is attached from the same data folder."""


class SpoolUnusable(OSError, AgentError):
    """Rows cannot be kept on disk."""


class CollectorUnreachable(ConnectionError, AgentError):
    """The collector does not answer."""
