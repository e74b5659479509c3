"""The web page in headless Chromium, with a real server and a real upload; skips where there is no Chromium."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fasthamer.web.examples import write_examples

ROOT = Path(__file__).parents[1]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--no-default-browser-check"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PATIENCE = 120_000  # milliseconds until a wait counts as failed; a result takes one or two seconds


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a running server; at the end it is stopped and must leave nothing behind."""
    for package in ("gradio", "trimesh", "playwright"):
        pytest.importorskip(package, reason="needs the extra [dev]")
    if BROWSER is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    folder = tmp_path_factory.mktemp("server")
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "serve.py"), "--port", "0"],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=open(folder.parent / "server.log", "w"),  # noqa: SIM115
        text=True,
    )
    try:
        line = server.stdout.readline()
        assert line.startswith("fasthamer: http://127.0.0.1:"), (folder.parent / "server.log").read_text()
        yield line.split()[1]
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    assert server.returncode == 0 and not list(folder.glob("fasthamer-*"))


@pytest.fixture(scope="module")
def page(address):
    """The page in a browser. Whatever it asks of another computer is an error."""
    from playwright.sync_api import sync_playwright

    asked = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1400, "height": 1100})
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        yield page
        browser.close()
    hosts = {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))}
    assert asked and hosts == {"127.0.0.1"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two files: a rendered hand, and no image."""
    folder = tmp_path_factory.mktemp("images")
    hand, garbage = write_examples(folder)[0], folder / "garbage.jpg"
    garbage.write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)) * 40)
    return hand, garbage


def upload(page, file: Path) -> None:
    page.set_input_files("#image input[type=file]", file)


def test_an_upload_shows_overlay_mesh_and_21_joints_and_gives_files(page, images, tmp_path):
    import trimesh

    upload(page, images[0])
    page.locator("#message", has_text="1 hand: right").wait_for()
    page.locator("#overlay img").wait_for()
    page.locator("#mesh canvas").wait_for()
    assert page.locator("#overlay img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 480
    rows = page.locator("#joints div[role='row']", has_text="1 right")
    rows.nth(20).wait_for()
    assert rows.count() == 21
    assert all(stage in page.inner_text("#times") for stage in ("detection", "crop to mesh", "overlay"))
    for button in ("glb", "json"):
        with page.expect_download() as download:
            page.locator(f"#{button}").click()
        assert download.value.suggested_filename == f"hands.{button}"
        download.value.save_as(tmp_path / f"hands.{button}")
    assert trimesh.load(tmp_path / "hands.glb", process=False).to_geometry().vertices.shape == (778, 3)
    assert len(json.loads((tmp_path / "hands.json").read_text(encoding="utf-8"))["hands"]) == 1


def test_an_example_can_be_chosen(page):
    page.locator(".gallery-item").nth(1).click()
    page.locator("#message", has_text="1 hand: left").wait_for()


def test_garbage_gives_a_message_and_the_server_lives_on(page, images):
    upload(page, images[1])
    page.locator("#message", has_text="This file cannot be used. garbage.jpg").wait_for()
    assert page.locator("#overlay img").count() == 0
    upload(page, images[0])
    page.locator("#message", has_text="1 hand: right").wait_for()


def test_another_model_can_be_chosen(page, images):
    before = page.locator("#overlay img").get_attribute("src")
    page.locator("#model input").click()
    page.get_by_role("option", name="embedded").click()
    page.wait_for_function("before => document.querySelector('#overlay img')?.src != before", arg=before)
    page.locator("#message", has_text="1 hand: right").wait_for()
