"""Serve a web page that shows the hands of an image: overlay, mesh to turn, joints, downloads.

    python tools/serve.py
    python tools/serve.py --model runs/mine --model hand.onnx --port 8000

Only this computer can open the page, unless --host says otherwise; it has no passwords. Nothing is fetched from the
network, and uploaded images are removed when the command ends. Needs `pip install 'fasthamer-kd[web]'`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

from fasthamer.tools import cli

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Read when Gradio is imported: nothing is reported, and the browser keeps no history of uploads.
SETTINGS = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}


def main(argv: list[str] | None = None) -> int:
    """0 ended by Ctrl-C or SIGTERM, 2 the user's mistake."""
    parser = cli.command("serve", __doc__)
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        help="also offer this run directory, student's or exported file; may be repeated, the first is chosen first",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 = every network (127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="0 = any free one (7860)")
    parser.add_argument("--device", default="auto", help="auto = cuda, then mps, then cpu")
    arguments = parser.parse_args(argv)
    try:
        port = free_port(arguments.host, arguments.port)
        with tempfile.TemporaryDirectory(prefix="fasthamer-serve-") as folder:
            serve(arguments.model, arguments.device, arguments.host, port, Path(folder))
    except (*cli.MISTAKES, ImportError, OSError) as error:
        parser.error(cli.one_line(error))
    return 0


def free_port(host: str, port: int) -> int:
    """The port, or for 0 one that is free.

    Raises:
        ValueError: no such host, or the port is taken or not allowed.
    """
    if not 0 <= port < 65536:
        raise ValueError(f"--port is {port}; expected 0 (any free one) to 65535")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            return listener.getsockname()[1]
    except socket.gaierror:
        raise ValueError(f"--host {host} is no address of this computer") from None
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host}, port {port} ({error.strerror}): give another --port, or 0 for any free one"
        ) from None


def in_a_url(host: str) -> str:
    """IPv6 addresses stand in brackets (RFC 3986, 3.2.2); Gradio wants them, too."""
    return f"[{host}]" if ":" in host else host


def serve(models: list[str], device: str, host: str, port: int, folder: Path) -> None:
    """Serves the page until Ctrl-C or SIGTERM.

    Raises:
        ImportError: Gradio is not installed.
        FileNotFoundError, ValueError, KeyError: a model cannot be opened.
    """
    os.environ.update(SETTINGS, GRADIO_TEMP_DIR=str(folder / "uploads"))
    try:
        import gradio  # noqa: F401
        import trimesh  # noqa: F401
    except ImportError as error:
        raise ImportError(f"the web page needs {error.name}: pip install 'fasthamer-kd[web]'") from None

    from fasthamer.web.examples import write_examples
    from fasthamer.web.models import Models
    from fasthamer.web.page import CSS, build_page, theme
    from fasthamer.web.result import MOST_BYTES, find_hands

    offered, examples = Models(models, device), write_examples(folder)
    find_hands(offered, offered.names[0], examples[0], folder)  # networks open at their first image
    page = build_page(offered, examples, folder)
    page.queue(max_size=20)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    page.launch(
        server_name=in_a_url(host),
        server_port=port,
        share=False,
        ssr_mode=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=MOST_BYTES,
        footer_links=[],
        theme=theme(),
        css=CSS,
    )
    print(f"fasthamer: http://{in_a_url(host)}:{port}  (Ctrl-C ends it)", flush=True)
    if host not in LOOPBACK:
        print("fasthamer: other computers can open this page; it has no passwords", file=sys.stderr)
    page.block_thread()


if __name__ == "__main__":
    sys.exit(main())
