"""Draw the upper part of a bench's page, down to the heat maps of its sweep, as a PNG.

The picture of the README: `PYTHONPATH=tests python docs/draw_report.py docs/report.png results/digits-sweep`, after
`kdzoo bench --methods hinton,dkd --temperatures 1,2,4,8 --alphas 0.1,0.5,0.9 --set recipe.epochs=6 --name digits-sweep`.
"""

import base64
import io
import sys
import tempfile
from pathlib import Path

from chromium import Chromium
from PIL import Image

from kdzoo.suite.page.build import build_page

WIDTH, COLOURS = 1260, 128
LAST = "section:has(> h3[id$='-surface'])"
"""the last section that is drawn"""


def drawing(bench: Path) -> bytes:
    """The PNG of a bench's page, from its top to the end of LAST."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_text(build_page([bench]), encoding="utf-8")
        browser = Chromium()
        try:
            browser.open(page, WIDTH)
            height = browser.run(f"return document.querySelector({LAST!r}).getBoundingClientRect().bottom + scrollY")
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
            shot = browser.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": clip, "captureBeyondViewport": True})
            return few_colours(base64.b64decode(shot["data"]))
        finally:
            browser.close()


def few_colours(png: bytes) -> bytes:
    """The same picture with a palette, in a third of the bytes."""
    small = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    path, folder = sys.argv[1:]
    Path(path).write_bytes(drawing(Path(folder)))
