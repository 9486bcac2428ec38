"""Writes everything that is made from a study's results: tables, figures and a page that holds them."""

from __future__ import annotations

import html
from pathlib import Path

from spanseg import files
from spanseg import recipe as recipes
from spanseg.compare import analysis, centre_tables, figures, tables
from spanseg.compare.design import NEW
from spanseg.compare.results import to_csv
from spanseg.compare.tables import Summary, Table

STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}"
    "td,th{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:left;white-space:nowrap}"
    "svg{max-width:100%;margin:1rem 0}"
)


def write_report(summary: Summary, folder: Path) -> list[Path]:
    """Write the tables of a study and ``report.html``; returns the files."""
    made: dict[str, Table] = {
        "table_paper": tables.paper_table(summary),
        "table_long": tables.long_table(summary),
        "breakdown": tables.breakdown_table(summary),
    }
    if summary.plan.study.design == "leave_one_centre_out":
        made |= {
            "direct": centre_tables.direct_table(summary),
            "centres": centre_tables.centre_table(summary),
            "against": centre_tables.against_table(summary),
        }
    if summary.plan.study.design == "cross_dataset":
        made["datasets"] = tables.dataset_table(summary)
    if summary.plan.study.design == "fewshot":
        made["shots"] = tables.shots_table(summary)
    if summary.plan.study.against:
        made["pairs"] = tables.pairs_table(summary)
    for name, table in made.items():
        head, *body = table
        files.write_text(folder / f"{name}.csv", to_csv(head, [dict(zip(head, line, strict=True)) for line in body]))
    star = f"\n\\* p < 0.05 against {summary.starred_against}, paired t-test, not corrected for the number of rows.\n"
    files.write_text(folder / "table_paper.md", tables.markdown(made["table_paper"]) + star)
    files.write_text(folder / "report.html", page(summary, made))
    return [folder / f"{name}.csv" for name in made] + [folder / "table_paper.md", folder / "report.html"]


def page(summary: Summary, made: dict[str, Table]) -> str:
    """The page: what was compared, the figures, and the tables that people read."""
    study = summary.plan.study
    title = html.escape(study.title)
    shown = [
        "table_paper",
        *[name for name in ("direct", "centres", "against", "datasets", "shots", "pairs") if name in made],
        "table_long",
    ]
    parts = [
        f"<h1>{title}</h1>",
        f"<p>{html.escape(described(summary))}</p>",
        "<ul>" + "".join(f"<li><b>{row.name}</b>: {html.escape(row.says)}</li>" for row in study.rows) + "</ul>",
        figures.intervals(_means(summary), "Dice, mean over people with 95 % interval"),
        figures.curves(_curves(summary, trained=True), "Dice on the people kept to watch"),
        figures.curves(_curves(summary, trained=False), "Dice of the base models on the people kept to watch them"),
        *(f"<h2>{_heading(name, summary)}</h2>{_html(made[name])}" for name in shown),
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def described(summary: Summary) -> str:
    """What was compared, and how far it got, in words."""
    study, plan = summary.plan.study, summary.plan
    finished = sum(summary.results.finished(cell) for cell in plan.cells)
    base = recipes.load(study.base, list(study.settings)).get("recipe", {}).get("title", study.base)
    centres = ", ".join(centre.name for centre in study.centres)
    first = f" after {study.base_steps} of the base model" if any(split.before for split in plan.splits) else ""
    return (
        f"{len(plan.people)} people of {centres}; design {study.design}, {len(plan.splits)} splits by person, "
        f"{len(study.seeds)} seeds, {study.steps} steps for every row{first}; augmentation {study.augment}; "
        f"base: {base}. {finished} of {len(plan.cells)} cells were run. "
        f"Differences are row minus {summary.reference}; p-values are corrected by Holm over the rows "
        "of a metric; detectable_80 is the smallest mean difference that these people would show with 80 % power."
    )


def _means(summary: Summary) -> dict[str, analysis.MeanInterval]:
    fair = summary.fair("dice", analysis.in_part(NEW))
    return {row: analysis.interval(fair[row]) for row in summary.rows if row in fair}


def _curves(summary: Summary, trained: bool) -> dict[str, list[tuple[float, float]]]:
    """Mean of each row's looks over the splits and seeds that all rows with curves have, of rows that train or not."""
    rows = {row.name for row in summary.plan.study.rows if row.trains is trained}
    curves = {cell: lines for cell, lines in summary.results.curves.items() if lines and cell.row in rows}
    blocks = [{(cell.seed, cell.split) for cell in curves if cell.row == row} for row in {one.row for one in curves}]
    common = set.intersection(*blocks) if blocks else set()
    looks: dict[str, dict[float, list[float]]] = {}
    for cell, lines in curves.items():
        for line in lines if (cell.seed, cell.split) in common else ():
            if line["validation"]:
                looks.setdefault(cell.row, {}).setdefault(float(line["step"]), []).append(float(line["validation"]))
    return {
        row: [(step, sum(all_) / len(all_)) for step, all_ in sorted(looks[row].items())]
        for row in summary.rows
        if row in looks
    }


def _heading(name: str, summary: Summary) -> str:
    return {
        "table_paper": f"In the papers' layout (* p &lt; 0.05 against {summary.starred_against}, not corrected)",
        "table_long": "In full",
        "direct": "What a new centre costs the base model as it is",
        "centres": "New and old centres",
        "against": f"Every row minus {summary.target} (p-values corrected over the rows or the centres)",
        "datasets": "By data set: coverage, failures, scores",
        "shots": "Shots to match",
        "pairs": "Rows against each other (p-values corrected over these pairs)",
    }[name]


def _html(table: Table) -> str:
    head, *body = table
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in body)
    return f"<table><tr>{top}</tr>{rows}</table>"
