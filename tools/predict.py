"""Find the hands of images and videos and write what a model predicts: overlays, meshes, numbers.

    python tools/predict.py image.jpg
    python tools/predict.py my_images --out found --save-mesh glb --json
    python tools/predict.py image.jpg --box 120,80,260,240 --box 400,90,520,230,left --out hands.png
    python tools/predict.py crowd.jpg --tiles 3 --side-view --model runs/mine
    python tools/predict.py clip.mp4 --out out.mp4 --compare embedded --model mobilenetv3_l
    python tools/predict.py 0

Without --box the hands are detected. Boxes are x1,y1,x2,y2 in pixels, tight around the hand. A folder is searched with
its folders; one that cannot be read is named and left out. Stopped halfway, the same command goes on: images whose
overlay is newer than they are left out. In videos, and before a webcam (0 is the first), hands are tracked. All files
are described in docs/predict.md and docs/video.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from fasthamer.files.atomic import write_text
from fasthamer.one_line import one_line
from fasthamer.tools import cli, video

MESHES = ("glb", "obj", "ply")
OVERLAYS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # what OpenCV writes
SETTINGS = "settings.json"  # in the folder of the results


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 failed, interrupted or an image of a folder was left out, 2 the user's mistake."""
    parser = _parser()
    arguments = parser.parse_args(argv)

    import cv2

    try:
        if arguments.source.is_dir():
            return _folder(arguments)
        if video.is_video(arguments.source):
            print(video.predict(arguments))
            return 0
        target = _target(arguments, arguments.source.name)
        if target.resolve() == arguments.source.resolve():
            raise ValueError(f"--out {arguments.out} is the image itself: give another name")
        if (target.parent / SETTINGS).is_file():
            raise ValueError(f"{target.parent} has the results of a folder ({SETTINGS}): give another --out")
        count = _predictor(arguments)(arguments.source, target)
    except KeyboardInterrupt:
        return cli.failed("predict", "interrupted; the same command goes on from there")
    except (*cli.MISTAKES, ImportError, cv2.error) as error:
        parser.error(cli.one_line(error))
    except (OSError, RuntimeError) as error:  # a full disk; a GPU without enough memory
        return cli.failed("predict", error)
    print(f"{f'{count} hand(s)' if count else 'no hands found'}: {one_line(target)}")
    return 0


def _folder(arguments: argparse.Namespace) -> int:
    """Predicts every image of a folder that is not done; returns the exit code.

    Raises:
        KeyError, ValueError, FileNotFoundError, ImportError: a mistake in the arguments.
        OSError: a file cannot be written.
    """
    import cv2
    from tqdm import tqdm

    names = _names(arguments)
    predict = _predictor(arguments)
    continued = _same_settings(arguments)
    counts, left_out = [], 0
    with tqdm(names, desc="predict", unit="image", mininterval=1, disable=None) as bar:
        for name in bar:
            source, target = arguments.source / name, _target(arguments, name)
            if continued and target.is_file() and target.stat().st_mtime >= source.stat().st_mtime:
                continue
            try:
                counts.append(predict(source, target))
            except (ValueError, FileNotFoundError, cv2.error) as error:
                tqdm.write(f"left out: {cli.one_line(error)}", file=sys.stderr)
                left_out += 1
    done = len(names) - len(counts) - left_out
    print(
        f"{len(counts)} images, {sum(counts)} hands, {counts.count(0)} images without"
        f"{f'; {done} done before' if done else ''}{f'; {left_out} left out' if left_out else ''}: {arguments.out}"
    )
    return 1 if left_out else 0


def _predictor(arguments: argparse.Namespace) -> Callable[[Path, Path], int]:
    """What writes the files of one image and gives the number of its hands; the overlay is written last.

    Raises:
        FileNotFoundError, ValueError, KeyError, ImportError: no such model, boxes of another form.
    """
    from fasthamer.detect.detector import MediaPipeDetector
    from fasthamer.files.image_forms import image_array
    from fasthamer.files.images import write_image
    from fasthamer.predict import HandMesh
    from fasthamer.predict.camera import image_camera
    from fasthamer.render.overlay import views_beside

    if arguments.compare:
        raise ValueError("--compare is for videos")
    boxes, right = zip(*map(_box, arguments.box), strict=True) if arguments.box else (None, True)
    detector = MediaPipeDetector(tiles=arguments.tiles)
    model = HandMesh(arguments.model, arguments.mano, arguments.teacher_ckpt, arguments.device, detector=detector)

    def predict(source: Path, target: Path) -> int:
        image = image_array(source)
        camera = image_camera(arguments.focal, source, image.shape[1], image.shape[0])
        hands = model(image, boxes, right, camera=camera, rotation=arguments.rotation or None)
        image = hands.draw(image, skeleton=arguments.skeleton)
        if arguments.side_view:
            image = views_beside(image, [(hand.vertices, hand.faces) for hand in hands])
        if arguments.json:
            hands.save(_beside(target, arguments, ".json"))
        if arguments.save_mesh and len(hands):
            hands.save(_beside(target, arguments, f".{arguments.save_mesh}"))
        write_image(target, image)
        return len(hands)

    return predict


def _names(arguments: argparse.Namespace) -> list[str]:
    """The images of the folder, without those that this command wrote.

    Raises:
        ValueError, FileNotFoundError: options that fit one image only, no images, or results among the images.
    """
    from fasthamer.distill.labelling import image_names

    if arguments.box or arguments.rotation:
        raise ValueError(f"{arguments.source} is a folder: --box and --rotation are for one image")
    out = arguments.out.resolve()
    if _is_file(arguments.out) or out == arguments.source.resolve():
        raise ValueError(f"--out {arguments.out}: expected a folder other than that of the images")
    return [name for name in image_names(arguments.source) if out not in (arguments.source / name).resolve().parents]


def _same_settings(arguments: argparse.Namespace) -> bool:
    """Whether the folder has results of these settings already; if not, writes down what they depend on.

    Raises:
        ValueError: the folder has results of other settings.
    """
    from fasthamer.predict.opening import STUDENT_FILE

    kept = {key: value for key, value in vars(arguments).items() if key not in ("out", "device")}
    kept["source"] = str(arguments.source.resolve())
    model = Path(arguments.model)
    model = model / STUDENT_FILE if model.is_dir() else model
    kept["model_changed"] = model.stat().st_mtime_ns if model.is_file() else 0  # a run may have gone on
    text = json.dumps(kept, indent=1) + "\n"
    path = arguments.out / SETTINGS
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != text:
        raise ValueError(f"{arguments.out} has results of other settings ({path}): give another --out, or remove it")
    before = path.is_file()
    write_text(path, text)
    return before


def _target(arguments: argparse.Namespace, name: str) -> Path:
    """The overlay of an image: in a folder it is called like the image."""
    if _is_file(arguments.out):
        return arguments.out
    return arguments.out / (name if Path(name).suffix.lower() in OVERLAYS else f"{name}.png")


def _beside(target: Path, arguments: argparse.Namespace, suffix: str) -> Path:
    """Another file of an image: hands.glb for --out hands.png; in a folder a.jpg.glb, since a.png may be there too."""
    return target.with_suffix(suffix) if _is_file(arguments.out) else target.with_name(target.name + suffix)


def _is_file(out: Path) -> bool:
    return out.suffix.lower() in OVERLAYS and not out.is_dir()


def _box(text: str) -> tuple[list[float], bool]:
    """`1,2,3,4[,left|right]` to a box and whether it is a right hand's."""
    *numbers, last = text.split(",")
    side = last.strip().lower()
    if side not in ("left", "right"):
        numbers, side = [*numbers, last], "right"
    try:
        box = [float(number) for number in numbers]
    except ValueError:
        box = []
    if len(box) != 4:
        raise ValueError(f"--box {text}: expected x1,y1,x2,y2 in pixels, then optionally ,left or ,right")
    return box, side == "right"


def _parser() -> argparse.ArgumentParser:
    parser = cli.command("predict", __doc__)
    add = parser.add_argument
    add("source", type=Path, metavar="IMAGE|FOLDER|VIDEO|0")
    add(
        "--out",
        type=Path,
        default=Path("runs/predict"),
        help="an image or video file for the overlay of one image or video, or a folder (runs/predict)",
    )
    add("--model", default="embedded", help="see `fasthamer zoo`; or hamer, wilor, a student's file, a run directory")
    add("--box", action="append", default=[], help="x1,y1,x2,y2 or x1,y1,x2,y2,left; may be repeated")
    add("--save-mesh", choices=MESHES, help="also write the meshes; of a video, of each frame and hand")
    add("--json", action="store_true", help="also write every number as JSON")
    add("--side-view", action="store_true", help="beside the overlay: each hand from the side and from above")
    add("--skeleton", action="store_true", help="draw joints instead of meshes")
    add("--compare", metavar="MODEL", help="of a video: the overlay of another model on the right")
    add("--hands", type=int, default=2, help="of a video: follow at most this many (2)")
    add("--tiles", type=int, default=1, help="also detect in N x N parts of the image: small hands")
    add("--focal", type=float, help="of the camera, pixels: then depths are metric; else EXIF's, else a guess")
    add(
        "--rotation",
        action="append",
        type=float,
        default=[],
        help="degrees clockwise from fingers up, one for each --box, for models of upright boxes; else from landmarks",
    )
    add("--mano", help="the MANO file the student was trained with, if one was")
    add("--teacher-ckpt", default="", help="hamer.ckpt or wilor_final.ckpt, for --model hamer or wilor")
    add("--device", default="auto", help="auto = cuda, then mps, then cpu")
    return parser


if __name__ == "__main__":
    sys.exit(main())
