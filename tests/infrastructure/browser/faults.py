"""What is wrong with a page for those who do not see it, or not well, or on a small screen."""

from typing import Literal

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page

# axe-core, which axe-playwright-python brings along.
AXE = Axe().axe_script
COLOURS: dict[str, object] = {"runOnly": ["color-contrast"]}
# What is asked on each screen; all else is the same on all of them.
SCREENS: tuple[tuple[int, Literal["light", "dark"], dict[str, object]], ...] = (
    (1200, "dark", COLOURS),
    (1200, "light", {"rules": {"target-size": {"enabled": True}}}),
    (390, "light", {"runOnly": ["color-contrast", "link-in-text-block", "scrollable-region-focusable", "target-size"]}),
    (390, "dark", COLOURS),
)


def faults(page: Page) -> list[str]:
    """Everything on each screen, wide and narrow, light and dark."""
    found = []
    page.evaluate(AXE)
    for width, scheme, options in SCREENS:
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        if (needed := page.evaluate("document.documentElement.scrollWidth")) > width:
            found.append(f"{width} pixels: scrolls sideways, as it is {needed} wide")
        rules = page.evaluate("options => axe.run(options)", {"resultTypes": ["violations"], **options})["violations"]
        found += [f"{width} pixels, {scheme}: {rule['id']}: {node['html']}" for rule in rules for node in rule["nodes"]]
    page.set_viewport_size({"width": 1200, "height": 800})
    return found
