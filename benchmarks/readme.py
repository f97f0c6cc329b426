"""Figures and tables of a README, written again from stored results.

A place for them is a pair of comments, and what is between them is replaced:

    <!-- gpbo bench smoke: measured, ranks, figure regret -->
    <!-- gpbo bench end -->

Before the colon is the name under which results are kept, by default their suite's. The words after
it are titles of a report's sections, in lower case, or ``figure`` and a figure's name. The name
``stored`` stands for the tables of the module `stored`.
"""

import os
import re
from pathlib import Path

from gpbo.archive import write_text
from gpbo.errors import InvalidData

from . import stored, suites, table
from .sections import Findings, sections

#: A pair of comments, and what is between them.
PLACE = re.compile(
    r"(?P<begin><!-- gpbo bench (?P<results>[\w-]+): (?P<wanted>[^>]*?) -->\n)"
    r"(?:(?!<!-- gpbo bench ).)*(?P<end><!-- gpbo bench end -->)",
    re.DOTALL,
)
_BEGIN = re.compile(r"<!-- gpbo bench [\w-]+:[^>]*>?")


def rewrite(readme: Path, results: Path) -> int:
    """Fill every place of a Markdown file; returns how many there were.

    Args:
        results: The folder with a ``<name>.parquet`` for each place, into whose folder ``figures``
            the figures go.

    Raises:
        InvalidData: a place has no end, or asks for results that do not exist, or for something
            that their report or the stored tables do not have.
    """
    before = readme.read_text(encoding="utf-8")
    if (lone := _BEGIN.search(PLACE.sub("", before))) is not None:
        raise InvalidData(
            f"{readme}: {lone[0]}: expected a line of its own, and <!-- gpbo bench end --> after it"
        )

    def filled(place: re.Match[str]) -> str:
        wanted = [word.strip() for word in place["wanted"].split(",")]
        body = _body(place["results"], wanted, readme.parent, results)
        return f"{place['begin']}{body}\n{place['end']}"

    text, count = PLACE.subn(filled, before)
    write_text(readme, text)
    return count


def _body(name: str, wanted: list[str], folder: Path, results: Path) -> str:
    if name == "stored":
        return stored.markdown(wanted, results)
    source = results / f"{name}.parquet"
    rows, header = table.read(source)
    findings = Findings.of(rows, header, suites.get(header["suite"]).targets)
    made = {title.lower(): section for title, section in sections(findings).items()}
    drawn = {title: figure for _, figures in made.values() for title, figure in figures.items()}
    parts = []
    for word in wanted:
        title = word.removeprefix("figure ")
        if word in made:
            parts.append(made[word][0])
        elif word != title and title in drawn:
            path = results / "figures" / f"{name}-{title}.png"
            path.parent.mkdir(exist_ok=True)
            drawn[title].savefig(path, dpi=110)
            parts.append(f"![{title} of {name}]({Path(os.path.relpath(path, folder)).as_posix()})")
        else:
            known = ", ".join([*made, *(f"figure {title}" for title in drawn)])
            raise InvalidData(f"{word!r} of the results {name!r}: expected one of {known}")
    return "\n\n".join(parts)
