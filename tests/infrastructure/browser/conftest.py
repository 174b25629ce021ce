"""A real browser on a real server."""

import os
import shutil
import threading
from collections.abc import Iterator

import pytest
from flask import Flask
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from werkzeug.serving import make_server

# Milliseconds, for a machine that is busy.
expect.set_options(timeout=20_000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium of the machine, without a window."""
    program = shutil.which("chromium")
    if not program:
        pytest.skip("needs chromium: apt install chromium")
    # Its sandbox refuses to work for root.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.fixture
def address(app: Flask) -> Iterator[str]:
    """Where the service answers, without a slash at the end."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def scripts() -> bool:
    """Whether the browser runs scripts; a test may say no."""
    return True


@pytest.fixture
def page(browser: Browser, address: str, scripts: bool) -> Iterator[Page]:
    """A tab, whose console has no errors in the end, such as violations of the Content-Security-Policy."""
    complaints = []

    def listen(message: ConsoleMessage) -> None:
        # Chromium also logs the page's own 404 or 422; a file that a page lacks has another address.
        is_answer = message.text.startswith("Failed to load") and message.location["url"] == tab.url
        if message.type == "error" and not is_answer:
            complaints.append(message.text)

    with browser.new_context(base_url=address, java_script_enabled=scripts) as context:
        tab = context.new_page()
        tab.on("console", listen)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        yield tab
    assert complaints == []
