"""The tables of a report as HTML. Every text from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from fasthamer.distill.report.entry import Entry
from fasthamer.distill.score_table import ABOUT, COLUMNS, number, scored_keys


def main_scores(entries: Sequence[Entry]) -> str:
    """A row for each entry, a column for each main score; the best model of a dataset in bold."""
    keys = [key for key in COLUMNS if any(key in entry.scores for entry in entries)]
    titles = "".join(f"<th>{escape(COLUMNS[key])}</th>" for key in keys)
    rows = []
    for entry in entries:
        rivals = [other.scores for other in entries if other.data == entry.data]
        cells = "".join(_score_cell(key, entry.scores, rivals) for key in keys)
        about = f'<td class="text">{escape(entry.data)}</td><td class="text">{escape(entry.model)}</td>'
        rows.append(f"<tr>{about}<td>{entry.scores['n']}</td>{cells}</tr>")
    head = f'<tr><th class="text">data</th><th class="text">model</th><th>hands</th>{titles}</tr>'
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _score_cell(key: str, scores: Mapping[str, Any], rivals: Sequence[Mapping[str, Any]]) -> str:
    if key not in scores:
        return "<td>-</td>"
    values = [other[key] for other in rivals if key in other]
    wins = len(values) > 1 and scores[key] == (min if key.endswith("_mm") else max)(values)
    low, high = (number(key, bound) for bound in scores[f"{key}_ci95"])
    return f"<td{' class=best' if wins else ''}>{number(key, scores[key])}<small>{low} to {high}</small></td>"


def all_scores(entries: Sequence[Entry]) -> str:
    """Every score of every entry, a column for each entry."""
    keys = list(dict.fromkeys(key for entry in entries for key in scored_keys(entry.scores)))
    others = list(
        dict.fromkeys(
            key
            for entry in entries
            for key in entry.scores
            if key not in keys and not key.endswith("_ci95") and key not in ("model", "data", "split")
        )
    )
    head = "".join(f'<th class="text">{escape(entry.model)}<br>{escape(entry.data)}</th>' for entry in entries)
    rows = [f'<tr><th class="text">score</th>{head}</tr>']
    for key in keys:
        cells = "".join(_score_cell(key, entry.scores, []) for entry in entries)
        rows.append(f'<tr><td class="text">{escape(key)}</td>{cells}</tr>')
    for key in (*(key for key in ABOUT if key in others), *(key for key in others if key not in ABOUT)):
        cells = "".join(f"<td>{escape(str(entry.scores.get(key, '-')))}</td>" for entry in entries)
        rows.append(f'<tr><td class="text">{escape(key)}</td>{cells}</tr>')
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def facts(values: Mapping[str, Any]) -> str:
    """Nested values, a row each."""
    rows = (
        f'<tr><td class="text">{escape(key)}</td><td class="text">{escape(value)}</td></tr>'
        for key, value in _flat(values)
    )
    return f"<table>{''.join(rows)}</table>"


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key} / ")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for number_, each in enumerate(value, 1):
                yield from _flat(each, f"{before}{key} {number_} / ")
        elif value is not None:
            yield f"{before}{key}", str(value)
