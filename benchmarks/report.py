"""The report of a suite: Markdown with figures, and the same as a single HTML file."""

import base64
import html
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from gpbo.archive import write_text

from . import analysis
from .sections import Findings, problem_section, sections
from .suites import Suite
from .words import beaten

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px }
table { display: block; overflow-x: auto }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd; white-space: nowrap }
th { border-bottom: 2px solid #888 } img { max-width: 100% }
"""


def write(
    rows: pd.DataFrame,
    header: Mapping[str, Any],
    suite: Suite,
    folder: Path,
    reference: str | None = None,
) -> tuple[Path, Path]:
    """Write ``report.md``, its figures, and ``report.html`` of results to a folder.

    Args:
        reference: The method that the others are tested against, by default gpbo's.

    Raises:
        InvalidOption: the reference has no value in these results.
    """
    findings = Findings.of(rows, header, suite.targets, reference)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    parts = [f"# Benchmark suite `{header['suite']}`"]
    for problem, (least, optimum) in analysis.beaten_optima(rows).items():
        parts.append(f"**{problem}: {beaten(least, optimum)}.**")
    for title, (text, drawn) in sections(findings).items():
        parts += [f"## {title}", text]
        for name, figure in drawn.items():
            figure.savefig(folder / "figures" / f"{name}.png", dpi=120)
            parts.append(f"![{name}](figures/{name}.png)")
    budgets = rows.groupby("problem")["budget"].max().to_dict()
    cases = [
        replace(case, budget=budgets[case.name]) for case in suite.cases if case.name in budgets
    ]
    parts += ["## Problems", problem_section(cases)]
    return write_pages("\n\n".join(parts) + "\n", folder)


def write_pages(text: str, folder: Path) -> tuple[Path, Path]:
    """Write a report as ``report.md`` and ``report.html``."""
    folder.mkdir(parents=True, exist_ok=True)
    markdown, page = folder / "report.md", folder / "report.html"
    write_text(markdown, text)
    write_text(page, as_html(text, folder))
    return markdown, page


def as_html(text: str, folder: Path) -> str:
    """Markdown as one self-contained HTML page, pictures included."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)

    def inside(found: re.Match[str]) -> str:
        data = base64.b64encode((folder / found[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{data}"'

    body = re.sub(r'src="([^":]+\.png)"', inside, body)
    title = html.escape(text.splitlines()[0].lstrip("# ").replace("`", ""))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style>{body}</html>\n"
    )
