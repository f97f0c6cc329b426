"""Figures and tables of a README, written anew from stored results.

A place for them is a pair of comments, and what is between them is replaced:

    <!-- gpbo bench smoke: measured, ranks, figure regret -->
    <!-- gpbo bench end -->

The words are titles of a report's sections, in small letters, and ``figure`` with a figure's name;
for the suite ``speed`` there is ``comparison``. ``stored`` in place of a suite has the tables of
the module of that name.
"""

import os
import re
from pathlib import Path

from gpbo.errors import InvalidData

from . import report, speed_suite, stored, suites, table
from .report import Findings, Section

#: A pair of comments, and what is between them.
PLACE = re.compile(
    r"(?P<begin><!-- gpbo bench (?P<suite>\w+): (?P<wanted>[^>]*?) -->\n)"
    r".*?(?P<end><!-- gpbo bench end -->)",
    re.DOTALL,
)


def rewrite(readme: Path, results: Path) -> int:
    """Fill every place of a Markdown file; returns how many there were.

    Args:
        results: The folder with a ``<suite>.parquet`` for each suite, into whose folder
            ``figures`` the figures go.

    Raises:
        InvalidData: a place asks for a suite without results, or for something that its report or
            what is stored does not have.
    """

    def filled(place: re.Match[str]) -> str:
        wanted = [word.strip() for word in place["wanted"].split(",")]
        body = _body(place["suite"], wanted, readme.parent, results)
        return f"{place['begin']}{body}\n{place['end']}"

    text, count = PLACE.subn(filled, readme.read_text())
    readme.write_text(text)
    return count


def _body(suite: str, wanted: list[str], folder: Path, results: Path) -> str:
    if suite == "stored":
        return stored.markdown(wanted, results)
    source = results / f"{suite}.parquet"
    if suite == "speed":
        made: dict[str, Section] = {"comparison": (speed_suite.comparison(source), {})}
    else:
        rows, header = table.read(source)
        findings = Findings.of(rows, header, suites.get(suite).targets)
        sections = report.sections(findings).items()
        made = {title.lower(): section for title, section in sections}
    drawn = {name: figure for _, figures in made.values() for name, figure in figures.items()}
    parts = []
    for word in wanted:
        name = word.removeprefix("figure ")
        if word in made:
            parts.append(made[word][0])
        elif word != name and name in drawn:
            path = results / "figures" / f"{suite}-{name}.png"
            path.parent.mkdir(exist_ok=True)
            drawn[name].savefig(path, dpi=110)
            parts.append(f"![{name} of {suite}]({Path(os.path.relpath(path, folder)).as_posix()})")
        else:
            known = ", ".join([*made, *(f"figure {name}" for name in drawn)])
            raise InvalidData(f"{word!r} of the suite {suite!r}: expected one of {known}")
    return "\n\n".join(parts)
