"""A headless browser for tests that look at pages."""

import re
import shutil
import subprocess

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
        "--disable-sync --host-resolver-rules=MAP\\ *\\ ~NOTFOUND"
    )
    .replace("\\ ", "\0")
    .split()
)


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome is installed: pages are not looked at")


def width_on_a_telephone(html, folder):
    """How far the content of a page of 420 pixels reaches to the right, in pixels.

    The page stands in a frame of that width, because browsers without a window are never so narrow.
    """
    script = (
        "f = document.querySelector('iframe'); f.onload = () => document.body.dataset.width = f.contentDocument.documentElement.scrollWidth"
    )
    source = html.replace("&", "&amp;").replace('"', "&quot;")
    frame = folder / "frame.html"
    frame.write_text(f'<body><iframe width="420" height="3000" frameborder="0" srcdoc="{source}"></iframe><script>{script}</script></body>')
    dom, _ = look_at(frame, folder, size="800,3000", shot=False)
    return int(re.search(r'data-width="(\d+)"', dom)[1])


def look_at(page, folder, *, size="1250,4600", shot=True):
    """(DOM after loading, path of a screenshot or None) of a local HTML file; the browser can reach no network."""
    common = [BROWSER, *(flag.replace("\0", " ") for flag in FLAGS), f"--user-data-dir={folder / 'browser'}", f"--window-size={size}"]
    dom = subprocess.run([*common, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    if not shot:
        return dom, None
    picture = folder / "page.png"
    subprocess.run([*common, f"--screenshot={picture}", page.as_uri()], capture_output=True, timeout=120, check=True)
    return dom, picture
