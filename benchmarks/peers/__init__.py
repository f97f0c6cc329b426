"""Other optimizers, set up as by their authors, each in a process of its own.

`run_peer` runs one of `PEERS` on a problem and returns a `gpbo_benchmarks.trace.Trace`, whatever
becomes of the peer. ``python -m gpbo_benchmarks.peers`` lists them and installs those whose pins
conflict with gpbo's into environments of their own.
"""

from .catalogue import PEERS
from .conversation import Limits
from .environments import installed, why_not
from .failure import PeerFailure
from .peer import Peer
from .run import run_peer

__all__ = ["PEERS", "Limits", "Peer", "PeerFailure", "installed", "run_peer", "why_not"]
