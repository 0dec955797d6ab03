# SPDX-License-Identifier: Apache-2.0
"""The page's view in a headless browser: its pixels, its keys, and the picture in its frustum."""

from __future__ import annotations

from headless_browser import needs_browser, until
from test_page_in_browser import page  # noqa: F401  (a fixture)

pytestmark = needs_browser


def test_a_zoomed_page_has_as_many_pixels_as_the_window(page):  # noqa: F811
    page.evaluate("worldsystem.stage.software = false")  # where it is, it draws fewer of them
    window = page.context.new_cdp_session(page)
    for zoom in (2, 1, 1.5):
        size = {"width": int(960 / zoom), "height": int(600 / zoom), "mobile": False}
        window.send("Emulation.setDeviceMetricsOverride", {**size, "deviceScaleFactor": zoom})
        until(page, f"devicePixelRatio === {zoom}")
        until(page, f"document.querySelector('#stage canvas').clientWidth === {size['width']}")
        until(page, "document.querySelector('#stage canvas').width === 960")
    assert page.complaints == []
