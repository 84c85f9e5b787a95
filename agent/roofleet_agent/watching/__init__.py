"""Watches a model in the user's own code, which must not notice.

Calls are timed where they happen (calls.py). What a call costs is found afterwards: copies of its inputs
(copying.py) are played through the model once for its ops and once for its memory (playing.py), with state of
its own (keeping.py), writing to nothing that is the user's (guarding.py) and without the user's hooks
(quietly.py). The rows are made in rows.py, and watch.py puts the parts together.
"""

from roofleet_agent.watching.watch import Watch

__all__ = ["Watch"]
