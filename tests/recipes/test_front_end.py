"""The board in a browser: what it lists, what it adds, and that the Content-Security-Policy has nothing against it."""

import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.serving import make_server

from tests.conftest import PASSWORD

# Prints what the console complains about, and then what the board lists. A refusal is no complaint.
WALK = """
import { chromium } from "playwright-core";

const [program, baseURL, password] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox"] });
const page = await browser.newPage({ baseURL });
const complain = (text) => text.includes("422") || console.log(text);
page.on("console", (message) => message.type() === "error" && complain(message.text()));
page.on("pageerror", (error) => complain(error.message));

await page.goto("/tasks/board");
await page.getByLabel("User name").fill("ada");
await page.getByLabel("Password").fill(password);
await page.getByRole("button", { name: "Log in" }).click();
await page.getByText("First").waitFor();
for (const title of [" ", "Second"]) {
  await page.getByLabel("New task").fill(title);
  await page.getByRole("button", { name: "Add" }).click();
  await page.getByText(title.trim() || "$.title").waitFor();
}
await page.reload();
await page.getByText("First").waitFor();
console.log(JSON.stringify(await page.getByRole("listitem").allTextContents()));
await browser.close();
"""


def test_the_board_lists_and_adds_in_a_browser(app: Flask, logged_in: Any, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("needs chromium: apt install chromium")
    assert logged_in.submit("/tasks/new", {"title": "First"}).status_code == 302
    subprocess.run(["npm", "install", "--silent", "--prefix", tmp_path, "playwright-core"], check=True)
    walk = tmp_path / "walk.mjs"
    walk.write_text(WALK)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        command = ["node", str(walk), chromium, f"http://127.0.0.1:{server.port}", PASSWORD]
        seen = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert seen.stderr == ""
    assert seen.stdout.splitlines() == ['["Second","First"]']
