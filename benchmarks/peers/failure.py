"""What ends a peer's run early."""


class PeerFailure(Exception):
    """A crash, a hang, a refusal or an answer that makes no sense; its text says which."""
