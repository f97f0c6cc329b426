"""A peer as a value: where it comes from, how it is installed, what its licence allows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """Another optimizer, as its authors set it up.

    Attributes:
        name: The name by which `run_peer` knows it.
        title: The name in words.
        adapter: ``file.py:Class``; a file that is not absolute is one of ``adapters/``.
        environment: Its requirements, a file in ``requirements/``.
        distributions: Packages whose versions are recorded, the peer's own first.
        needs: Those of them without which it is not installed; by default the first.
        extra: gpbo's extra that installs it beside gpbo; None where the pins conflict.
        citation: What to cite.
        licence: Under which it is published, and what follows.
        settings: What differs from its defaults, and why; how it gets parameters that it has no
            type for.
        not_beside_gpbo: Why there is no extra.
        constraints: Whether it takes constraints on what is measured.
        batches: Whether it proposes several points at a time, as its authors intend.
    """

    name: str
    title: str
    adapter: str
    environment: str
    distributions: tuple[str, ...]
    citation: str
    licence: str
    settings: str
    extra: str | None = None
    not_beside_gpbo: str | None = None
    constraints: bool = False
    batches: bool = False
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", self.needs or self.distributions[:1])
