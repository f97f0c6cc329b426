"""Other optimizers as their authors set them up, each in a process of its own.

`run_peer` runs one of `PEERS` on a problem and returns a `gpbo_benchmarks.trace.Trace`, whatever
becomes of the peer. ``python -m gpbo_benchmarks.peers`` lists them and installs those whose pins
conflict with gpbo's into environments of their own.
"""

from gpbo_benchmarks.peers.catalogue import PEERS
from gpbo_benchmarks.peers.conversation import Limits
from gpbo_benchmarks.peers.environments import installed, why_not
from gpbo_benchmarks.peers.failure import PeerFailure
from gpbo_benchmarks.peers.peer import Peer
from gpbo_benchmarks.peers.run import run_peer

__all__ = ["PEERS", "Limits", "Peer", "PeerFailure", "installed", "run_peer", "why_not"]
