"""Writes docs/page.png, the page that a model writes in: python benchmarks/picture.py MODEL"""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Error, Playwright, sync_playwright

import charlm
from charlm.export import html

ROOT = Path(__file__).parent.parent
KEYS = ["ArrowDown"] * 3 + ["ArrowRight"] * 12  # from the text's beginning to what is looked at


def launched(driver: Playwright) -> Browser:
    """A headless Chromium: the system's, Google's Chrome, or the one that `playwright install chromium` left.

    Raises:
        ModuleNotFoundError: there is none.
    """
    found = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        return driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
    except Error:
        raise ModuleNotFoundError("no Chromium", name="Chromium") from None


def main() -> None:
    model = charlm.load(sys.argv[1], models=ROOT / "models")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        html.write(model, Path(folder, "page.html"))
        browser = launched(driver)
        page = browser.new_page(viewport={"width": 800, "height": 820}, color_scheme="light")
        page.goto(Path(folder, "page.html").as_uri())
        page.locator("#openings button").first.click(timeout=60_000)
        page.wait_for_function("document.getElementById('said').textContent.endsWith('written.')", timeout=60_000)
        page.focus("#text")
        for key in KEYS:
            page.keyboard.press(key)
        page.screenshot(path=ROOT / "docs/page.png")
        browser.close()


if __name__ == "__main__":
    main()
