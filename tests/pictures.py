"""`make pictures`: docs/pictures/, what the README shows of a project with the default answers, drawn by Chromium.

Wide pages are drawn in light colours, narrow ones in dark, as a phone's at night. The project's README shows one, too.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from baking import clean_environment
from demo import TEMPLATE, free_port, generate, make_dev, stop, wait_until_ready
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, sync_playwright

PICTURES = TEMPLATE / "docs/pictures"
PROJECT = "{{cookiecutter.project_slug}}"
PASSWORD = "a loom, a card, a needle"
SCREENS = {"wide": (1200, 800, "light"), "narrow": (390, 800, "dark")}
PAGES = {"index": "/", "profile": "/profile/ada", "operations": "/ops"}
POSTS = {
    "A loom that counts": "The loom in the workshop reads holes in cards. Give it other cards, and it weaves another "
    "cloth; give it numbers, and there is no reason why it should stop at cloth.",
    "Which step comes first": "Two people followed the same list yesterday and got two results. The list was right. "
    "Its order was never written down.",
    "Fewer cards for the table": "The middle of the table repeats itself. With one card that says how often, the pile "
    "is half as high, and nobody has dropped it since.",
}


def fill(page: Page, address: str) -> None:
    """An account with a picture and posts, by the pages themselves."""
    page.goto(f"{address}/register")
    for name, text in {"username": "ada", "email": "ada@example.org", "password": PASSWORD}.items():
        page.locator(f"#{name}").fill(text)
    page.locator("main button").click()
    page.goto(f"{address}/picture")
    picture = {"name": "ada.png", "mimeType": "image/png", "buffer": portrait()}
    page.locator("input[type=file]").set_input_files([picture])
    page.get_by_role("button", name="Upload").click()
    for title, body in POSTS.items():
        page.goto(f"{address}/posts/new")
        page.locator("#title").fill(title)
        page.locator("#body").fill(body)
        page.get_by_role("button", name="Publish").click()


def portrait() -> bytes:
    """A few shapes."""
    image = Image.new("RGB", (400, 400), "#d9c8a9")
    draw = ImageDraw.Draw(image)
    draw.ellipse((120, 70, 280, 250), fill="#7a4b2a")
    draw.ellipse((60, 240, 340, 520), fill="#2f5d62")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def draw(browser: Browser, address: str, project: Path) -> None:
    """Every page on every screen."""
    with browser.new_context() as context:
        page = context.new_page()
        fill(page, address)
        command = [str(project / ".venv/bin/python"), "main.py", "user", "admin", "ada"]
        subprocess.run(command, cwd=project, env=clean_environment(), check=True)
        page.goto(f"{address}/profile/ada")
        while not page.locator("img.avatar").count():
            page.reload()
        state = context.storage_state()
    for screen, (width, height, scheme) in SCREENS.items():
        with browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, storage_state=state
        ) as context:
            page = context.new_page()
            for name, path in PAGES.items():
                page.goto(address + path)
                shot = Image.open(io.BytesIO(page.screenshot()))
                shot.quantize().save(PICTURES / f"{name}-{screen}.png", optimize=True)


def main() -> None:
    program = shutil.which("chromium") or sys.exit("needs chromium: apt install chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        project, port = generate(Path(folder)), free_port()
        process = make_dev(project, {"PORT": str(port)})
        # Chromium's sandbox refuses to work for root.
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        try:
            assert wait_until_ready(process, f"http://127.0.0.1:{port}")
            draw(browser, f"http://127.0.0.1:{port}", project)
            shutil.copy(PICTURES / "operations-wide.png", TEMPLATE / PROJECT / "docs/operations.png")
        finally:
            browser.close()
            stop(process)


if __name__ == "__main__":
    main()
