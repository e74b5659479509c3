"""The page: an image and a model on the left, the hands on the right. Its work is done by `result.py`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import gradio as gr

from fasthamer.web.models import Models
from fasthamer.web.result import JOINT_COLUMNS, find_hands, time_line

TITLE = "fasthamer"
INTRODUCTION = "3D meshes of the hands in an image. Everything runs on this computer; nothing is sent or kept."
LICENCES = (
    "fasthamer, its hand and the models shipped with it: MIT. MANO, HaMeR, WiLoR and models trained with them: "
    "non-commercial research, under their own terms."
)
CSS = """
#introduction p { margin: 0 0 .4rem; color: var(--body-text-color-subdued); }
#introduction h1 { margin: .2rem 0 0; }
#message p { margin: 0; font-size: 1.05rem; }
#times p, #licences p { margin: 0; font-size: .85rem; color: var(--body-text-color-subdued); }
#licences { text-align: center; }
"""
KEEP_SECONDS = 1800  # how long uploaded files stay before the process ends


def build_page(models: Models, examples: Sequence[Path], folder: Path) -> gr.Blocks:
    """The page, not yet served.

    Args:
        models: what it offers.
        examples: image files to try it with.
        folder: for the files that it makes; the caller removes it.
    """
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(KEEP_SECONDS // 2, KEEP_SECONDS), fill_width=True
    ) as page:
        gr.Markdown(f"# {TITLE}\n{INTRODUCTION}", elem_id="introduction")
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                image = gr.Image(
                    label="Image",
                    sources=["upload", "webcam", "clipboard"],
                    height=340,
                    buttons=["fullscreen"],  # Gradio's share button would send the image away
                    webcam_options=gr.WebcamOptions(mirror=False),  # mirroring would make left hands right ones
                    elem_id="image",
                )
                model = gr.Dropdown(models.names, value=models.names[0], label="Model", elem_id="model")
                gr.Examples([[str(file)] for file in examples], [image], label="Synthetic hands to try")
            with gr.Column(scale=5):
                message = gr.Markdown("Drop an image, or choose one of the examples.", elem_id="message")
                with gr.Row():
                    overlay = gr.Image(
                        label="Overlay",
                        height=420,
                        interactive=False,
                        format="jpeg",
                        buttons=["download", "fullscreen"],
                        elem_id="overlay",
                    )
                    mesh = gr.Model3D(label="Meshes: drag to turn, wheel to zoom", height=420, elem_id="mesh")
                times = gr.Markdown(elem_id="times")
                with gr.Row():
                    glb = gr.DownloadButton("Download GLB", interactive=False, elem_id="glb")
                    json = gr.DownloadButton("Download JSON", interactive=False, elem_id="json")
                joints = gr.Dataframe(
                    headers=list(JOINT_COLUMNS),
                    label="Joints: pixels of the image; millimetres from the wrist, x right, y down, z away",
                    interactive=False,
                    max_height=840,  # 21 rows
                    elem_id="joints",
                )
        gr.Markdown(LICENCES, elem_id="licences")
        gr.on(
            [image.change, model.change],
            partial(_shown, models, folder),
            [image, model],
            [message, overlay, mesh, times, glb, json, joints],
            concurrency_limit=1,  # the result's files are overwritten by the next call
            preprocess=False,  # Gradio's fails on damaged images; it checks before that an upload is in its own folder
            api_visibility="private",
        )
    return page


def theme() -> gr.themes.Base:
    """Gradio's with the system's fonts."""
    return gr.themes.Soft(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def _shown(models: Models, folder: Path, stored: dict | None, model: str) -> tuple[object, ...]:
    """The values of the page's components, in their order; `stored` is an upload as Gradio describes it."""
    result = find_hands(models, model, stored["path"] if stored else None, folder)
    downloads = [gr.DownloadButton(value=path, interactive=path is not None) for path in (result.glb, result.json)]
    rows = [[value if isinstance(value, str) else f"{value:.1f}" for value in row] for row in result.joints]
    return result.message, result.overlay, result.view, time_line(result.seconds), *downloads, rows
