"""Take the README's picture of a page: python golden/record/picture.py

Shown are the head of the page, the model, the attention of all heads and the words that
decided; the rest is left out.  Needs the extra `browser`, chromium and pillow.
"""

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import npbert

SENTENCE = "She opened the [MASK] and went out into the garden."
SHOWN = "header, #picture, #attention, #words"  # of the page's parts
HEAD = '.small[data-block="1"][data-number="1"]'  # whose mask listens to the word before it
COLOURS = 256  # half of the file's size, and no difference to the eye
HIDE = """shown => {
  const kept = [...document.querySelectorAll(shown)];
  for (const each of document.querySelectorAll('.view, header, nav, footer, .fold')) {
    if (!kept.some(one => one === each || each.contains(one))) each.style.display = 'none';
  }
}"""

with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
    path = Path(folder) / "page.html"
    npbert.explain(None, SENTENCE).save(path)
    browser = playwright.chromium.launch(
        executable_path=shutil.which("chromium"), args=["--headless", "--no-sandbox"]
    )
    page = browser.new_page(viewport={"width": 1440, "height": 800}, color_scheme="light")
    page.goto(path.as_uri())
    page.click(HEAD)
    page.locator(".web button").nth(4).focus()
    page.evaluate("document.activeElement.blur()")
    page.evaluate(HIDE, SHOWN)
    taken = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    small = taken.quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(Path(__file__).parent.parent / "explain.png", optimize=True)
    browser.close()
