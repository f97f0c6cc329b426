"""``python -m gpbo_benchmarks.peers``: which peers there are, and environments for them."""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .catalogue import PEERS
from .environments import environments, install, installed, interpreter, why_not
from .failure import PeerFailure

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="The peers of gpbo's benchmarks, which are the other packages that it is compared with.",
)


@app.command("list")
def show() -> None:
    """The peers, their versions, and how to install those that are missing."""
    view = Table()
    for column in ("peer", "version", "interpreter, or what is missing"):
        view.add_column(column, overflow="fold")
    for peer in PEERS.values():
        found = installed(peer)
        version = found[peer.distributions[0]] if found else "-"
        view.add_row(peer.name, version, escape(why_not(peer) or str(interpreter(peer))))
    Console().print(view)


@app.command()
def about(name: str) -> None:
    """What to cite of a peer, its licence, and how it is set up."""
    if name not in PEERS:
        raise typer.BadParameter(f"{name!r}: expected one of {', '.join(PEERS)}")
    peer = PEERS[name]
    for line in (peer.title, peer.citation, f"Licence: {peer.licence}", f"Here: {peer.settings}"):
        typer.echo(line)


@app.command("install")
def make(
    names: Annotated[
        list[str], typer.Argument(help=f"'all', or some of {', '.join(environments())}")
    ],
) -> None:
    """Make environments with pinned versions, each in a folder of its own."""
    wanted = environments() if names == ["all"] else names
    failed = []
    for name in wanted:
        try:
            typer.echo(f"{name}: {install(name)}")
        except PeerFailure as failure:
            failed.append(name)
            typer.echo(f"{name}: {failure}", err=True)
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    app(prog_name="python -m gpbo_benchmarks.peers")
