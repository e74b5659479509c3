"""Write a model as a file for other runtimes, and report how far its answers are from the original's.

    python tools/export.py runs/mine --format onnx --out hand.onnx --images my_images
    python tools/export.py embedded --format openvino --precision int8 --out hand.xml
    python tools/export.py runs/mine --format onnx --without-mano --out parameters.onnx

MODEL is a run directory, a student's file, embedded, hamer or wilor. The file takes crops (B, 3, S, S) uint8; its
units, joint order and licence are written into it (docs/export.md). fasthamer.predict.HandMesh opens it as it opens a
checkpoint.
The report goes to <out>.report.json: differences on images (--images) or synthetic crops, and the cost in mm on
synthetic crops, whose truth is known.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fasthamer.tools import cli

SUFFIX = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
EXACT_MM = 0.01  # of an fp32 export; beyond it something is wrong


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 the export differs more than rounding explains, 2 the user's mistake."""
    parser = _parser()
    arguments = parser.parse_args(argv)

    from fasthamer.files.atomic import write_text
    from fasthamer.predict import open_model
    from fasthamer.runtime.parity import ExportRequest, export_and_compare, summary

    out = arguments.out or Path("hand").with_suffix(SUFFIX[arguments.format])
    try:
        if out.suffix != SUFFIX[arguments.format]:
            raise ValueError(f"--out {out}: a {arguments.format} export is called *{SUFFIX[arguments.format]}")
        model = open_model(arguments.model, arguments.mano, arguments.teacher_ckpt)
        request = ExportRequest(
            out, arguments.precision, not arguments.without_mano, arguments.images, arguments.calibrate, arguments.crops
        )
        report = export_and_compare(model, request)
        text = json.dumps({"model": arguments.model, **report}, indent=1) + "\n"
        write_text(out.with_name(f"{out.name}.report.json"), text)
    except (*cli.MISTAKES, ImportError) as error:
        parser.error(cli.one_line(error))
    except OSError as error:  # no permission, a full disk
        return cli.failed("export", error)
    print(summary(report))
    apart = report["differences"].get("vertices_mm_max", 0.0)
    if arguments.precision == "fp32" and apart > EXACT_MM:
        print(f"the vertices differ by {apart:.4f} mm: more than rounding explains", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = cli.command("export", __doc__)
    add = parser.add_argument
    add("model", help="a run directory, a student's file, embedded, hamer, wilor or Fast-HaMeR's .ckpt")
    add("--format", default="onnx", choices=tuple(SUFFIX))
    add("--out", type=Path, help="default: hand.onnx, hand.xml or hand.pt2")
    add("--precision", default="fp32", choices=("fp32", "fp16", "bf16", "int8"), help="of backbone and decoder")
    add(
        "--without-mano",
        action="store_true",
        help="leave the hand model out: camera, rotations and betas only (not of decoder token)",
    )
    add("--photos", dest="images", type=Path, help=argparse.SUPPRESS)  # the name that it had first
    add("--images", type=Path, help="folder of images of hands to compare on, each taken whole; default: synthetic")
    add("--calibrate", type=Path, help="folder of images to calibrate int8 with; default: synthetic crops")
    add("--crops", type=int, default=100, help="synthetic crops to calibrate with, and as many others to compare on")
    add("--mano", help="MANO_RIGHT.pkl or the like, if the student was trained with it")
    add("--teacher-ckpt", default="", help="hamer.ckpt or wilor_final.ckpt, for hamer or wilor")
    return parser


if __name__ == "__main__":
    sys.exit(main())
