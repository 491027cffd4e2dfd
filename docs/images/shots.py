"""Screenshots by headless Chromium: python docs/images/shots.py [SITE]

Runs the bundled pair under three policies and a sweep over one of the runs, and writes the heads of both pages to
report.png and sweep-report.png beside this file. Given SITE, the folder of a built site (make docs), it also takes
pages of that, to be looked at, into SITE/../shots.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from atts_runtime.cli import main as runtime
from atts_sim.cli import main as simulator

HERE = Path(__file__).parent
POLICIES = ("target-only", "barrier", "async-marginal")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
COLOURS = 128  # of a picture: pages are flat, and it becomes a third of the size


def shot(address: str, path: Path, width: int, height: int, *, dark: bool = False) -> None:
    """A picture of a page's head. Raises SystemExit where there is no Chromium."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"shots: none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={profile}", f"--window-size={width},{height}", "--virtual-time-budget=6000",
                *(["--blink-settings=preferredColorScheme=0"] if dark else []),
                f"--screenshot={path}", address,
            ],
            check=True, capture_output=True,
        )  # fmt: skip
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder over HTTP on this machine; gives the address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def reports(folder: Path) -> None:
    """Both reports, and their pictures."""
    runs = folder / "runs"
    runtime(["compare", "--policies", ",".join(POLICIES), "--questions", "12", "--out", str(runs)])
    runtime(["report", *(str(runs / f"{policy}-0") for policy in POLICIES), "--out", str(folder / "report.html")])
    sweep = folder / "sweep"
    simulator(
        ["sweep", "policy-comparison", "--set", f"workload.path={runs / 'async-marginal-0'}", "--jobs", "1",
         "--out", str(sweep)]
    )  # fmt: skip
    shot((folder / "report.html").as_uri(), HERE / "report.png", 1180, 760)
    shot((sweep / "report.html").as_uri(), HERE / "sweep-report.png", 1180, 900, dark=True)


def site(folder: Path) -> None:
    """Pages of the site."""
    out = folder.parent / "shots"
    out.mkdir(exist_ok=True)
    with served(folder) as address:
        shot(f"{address}/index.html", out / "home.png", 1280, 1100)
        shot(f"{address}/index.html", out / "home-dark.png", 1280, 1100, dark=True)
        shot(f"{address}/notebooks/coverage.html", out / "notebook.png", 1280, 2000)
        shot(f"{address}/method.html", out / "method.png", 1280, 1400, dark=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        reports(Path(made))
    if len(sys.argv) > 1:
        site(Path(sys.argv[1]))
