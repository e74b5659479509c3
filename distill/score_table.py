"""Scores as text: of one model on one dataset, of several as a table, and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any

COLUMNS = {  # of comparisons: key and title
    "pa_mpjpe_mm": "PA-MPJPE, mm",
    "pa_mpvpe_mm": "PA-MPVPE, mm",
    "mpjpe_rel_mm": "MPJPE, mm",
    "mpjpe_st_mm": "MPJPE ST, mm",
    "auc_joints": "AUC joints",
    "auc_vertices": "AUC vertices",
    "f5": "F@5",
    "f15": "F@15",
    "pck_05": "PCK@0.05",
    "pck_10": "PCK@0.10",
    "pck_15": "PCK@0.15",
}
ABOUT = ("model", "data", "split", "protocol", "joints", "image_size", "n")


def table(scores: dict[str, Any]) -> str:
    """The scores as lines with their confidence intervals."""
    crops = f", crops of {scores['image_size']} pixels" if "image_size" in scores else ""
    lines = [f"{scores['n']} samples{crops}, protocol {scores['protocol']}, joints {scores['joints']}"]
    if "detector_misses" in scores:
        lines += [f"  {scores['detector_misses']} hands not found by the detector: the crop was the whole image"]
    if "unreadable" in scores:
        lines += [f"  {scores['unreadable']} samples could not be read and are left out"]
    for key in scored_keys(scores):
        low, high = scores[f"{key}_ci95"]
        lines.append(f"  {key:24s} {number(key, scores[key]):>8s}   95 % {number(key, low)} to {number(key, high)}")
    return "\n".join(lines)


def comparison_table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each model and dataset, a column for each main score that any of them has; - where one has not."""
    keys = [key for key in COLUMNS if any(key in row for row in rows)]
    cells = [["data", "model", "n", *(COLUMNS[key] for key in keys)]]
    for row in rows:
        values = [number(key, row[key]) if key in row else "-" for key in keys]
        cells.append([f"{row['data']}, {row['split']}", row["model"], str(row["n"]), *values])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    justified = (
        [text.ljust(width) if column < 2 else text.rjust(width) for column, (text, width) in enumerate(pairs)]
        for pairs in (list(zip(line, widths, strict=True)) for line in cells)
    )
    return "\n".join("  ".join(line) for line in justified)


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """All scores as CSV: a line for each row, `<key>_low` and `<key>_high` beside each score with an interval."""
    flat = []
    for row in rows:
        line = {key: value for key, value in row.items() if not key.endswith("_ci95")}
        for key in scored_keys(row):
            line[f"{key}_low"], line[f"{key}_high"] = row[f"{key}_ci95"]
        flat.append(line)
    rest = sorted({key for line in flat for key in line} - {*ABOUT})
    text = StringIO()
    writer = csv.DictWriter(text, [*ABOUT, *rest], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def scored_keys(scores: dict[str, Any]) -> list[str]:
    """The keys that have a confidence interval."""
    return [key for key in scores if f"{key}_ci95" in scores]


def number(key: str, value: float) -> str:
    """A score with its digits: 2 for millimetres, 3 for fractions."""
    return f"{value:.2f}" if key.endswith("_mm") else f"{value:.3f}"
