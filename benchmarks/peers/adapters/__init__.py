"""Code for a peer's own interpreter: the standard library and that peer, no gpbo, no torch.

`serve` speaks the protocol, `space` says what a parameter is, `base` what an adapter does, and
every other file is the adapter of one package.
"""
