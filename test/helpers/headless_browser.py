"""A headless browser for tests that look at pages."""

import shutil
import subprocess

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
        "--disable-sync --host-resolver-rules=MAP\\ *\\ ~NOTFOUND"
    )
    .replace("\\ ", "\0")
    .split()
)


def look_at(page, folder, *, size="1250,4600"):
    """(DOM after loading, path of a screenshot) of a local HTML file; the browser can reach no network."""
    common = [BROWSER, *(flag.replace("\0", " ") for flag in FLAGS), f"--user-data-dir={folder / 'browser'}", f"--window-size={size}"]
    dom = subprocess.run([*common, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    shot = folder / "page.png"
    subprocess.run([*common, f"--screenshot={shot}", page.as_uri()], capture_output=True, timeout=120, check=True)
    return dom, shot
