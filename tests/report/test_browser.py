"""The page in a real browser: headless Chromium, as Debian's ``chromium`` and ``chromium-driver`` install it.

Skipped where the browser or its driver is missing: ``apt-get install chromium chromium-driver``.
"""

import base64
import json
import re
import shutil
import struct
from dataclasses import replace

import numpy as np
import pytest

from analyzer.diagnosis.model import BlastRadius
from analyzer.pipeline import AnalyzeOptions, analyze
from analyzer.report import write_report
from tests.frames import A, S, Segment, pcap

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="chromium and chromedriver are missing: apt-get install chromium chromium-driver"
)
COLOURS = """
const behind = element => {
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$|transparent/.test(colour)) { return colour; }
  }
  return 'rgb(255,255,255)';
};
return Array.from(document.querySelectorAll('h1,h2,h3,p,li,td,th,caption,figcaption,a,code,button,.tag,summary'))
  .filter(e => e.offsetParent && !e.disabled && e.textContent.trim())
  .map(e => [getComputedStyle(e).color, behind(e), e.textContent.slice(0, 40)]);
"""
SORTS = """
const times = [];
document.querySelectorAll('#syns thead button').forEach(button => {
  const before = performance.now();
  button.click();
  times.push(performance.now() - before);
});
return times;
"""
READY = "return document.documentElement.dataset.ready === 'yes'"
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def chromium():
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = BROWSER
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(everything, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(everything, str(folder))
    return folder / "report.html"


def _open(driver, path, width=1280):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get_log("browser"), driver.get_log("performance")
    driver.get("about:blank")
    driver.get(path.as_uri())
    assert driver.execute_script(READY)


def _requests(driver):
    """Addresses asked for since the page was opened, the page itself and data inside it left out."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("data:", "about:")) and not url.endswith("report.html")]


def _column(driver, table, index):
    script = "return Array.from(document.querySelectorAll(arguments[0])).map(cell => cell.textContent)"
    return driver.execute_script(script, f"#{table} tbody td:nth-child({index})")


def _index(driver, table, title):
    script = "return Array.from(document.querySelectorAll(arguments[0])).map(head => head.textContent)"
    return driver.execute_script(script, f"#{table} thead th").index(title) + 1


def _type(driver, table, words):
    script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
    driver.execute_script(script, driver.find_element("css selector", f"#{table} input"), words)
    driver.execute_async_script("setTimeout(arguments[0], 200)")


def test_no_error_and_no_request(chromium, report):
    _open(chromium, report)
    assert [entry for entry in chromium.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert _requests(chromium) == []


def test_sorting(chromium, report):
    _open(chromium, report)
    at = _index(chromium, "syns", "TSval difference")
    button = chromium.find_element("css selector", f"#syns thead th:nth-child({at}) button")
    for backwards in (False, True):
        chromium.execute_script("arguments[0].click()", button)
        numbers = [int(text) for text in _column(chromium, "syns", at)]
        assert len(numbers) == 50
        assert numbers == sorted(numbers, reverse=backwards)
    assert button.find_element("xpath", "..").get_attribute("aria-sort") == "descending"


def test_filtering_and_pages(chromium, report):
    _open(chromium, report)
    cause = _index(chromium, "syns", "cause")
    _type(chromium, "syns", "cause:peer_timestamp 172.16.10.242")
    assert set(_column(chromium, "syns", cause)) == {"peer_timestamp"}
    assert set(_column(chromium, "syns", _index(chromium, "syns", "source"))) == {"172.16.10.242"}
    where = chromium.find_element("css selector", "#syns .where")
    found = int(re.search(r"of (\d+)", where.text)[1])
    first = _column(chromium, "syns", 2)
    chromium.execute_script("document.querySelector('#syns .after').click()")
    assert where.text == f"51–{found} of {found}"
    assert len(_column(chromium, "syns", 2)) == found - 50
    assert not set(first) & set(_column(chromium, "syns", 2))
    _type(chromium, "syns", "no such thing")
    assert where.text == "no row"


def test_a_claim_shows_its_rows(chromium, report, everything):
    _open(chromium, report)
    chromium.execute_script("document.querySelector('a[data-filter=\"cause:peer_timestamp\"]').click()")
    count = everything.diagnosis.summary.by_cause["peer_timestamp"]
    assert chromium.find_element("css selector", "#syns .where").text == f"1–50 of {count}"
    assert chromium.current_url.endswith("#syns=cause%3Apeer_timestamp")
    chromium.refresh()
    assert chromium.find_element("css selector", "#syns .where").text == f"1–50 of {count}"


def test_copying_a_filter(chromium, report):
    _open(chromium, report)
    frame = chromium.find_element("css selector", "#syns tbody button.frame")
    chromium.execute_script("arguments[0].click()", frame)
    chromium.execute_async_script("setTimeout(arguments[0], 300)")
    said = chromium.find_element("css selector", "#said").get_attribute("textContent")
    assert re.fullmatch(r"copied frame\.number == \d+", said)


@pytest.mark.parametrize("width", [1280, 390])
def test_no_horizontal_scroll(chromium, report, width):
    _open(chromium, report, width)
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= width


def test_keyboard_reaches_tables_and_figures(chromium, report):
    _open(chromium, report)
    script = "return Array.from(document.querySelectorAll('.wide, .picture')).every(box => box.tabIndex === 0)"
    assert chromium.execute_script(script)


def _channels(colour):
    parts = [int(n) / 255 for n in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(chromium, report, scheme):
    """Every text at least 4.5 to 1 against what lies behind it (WCAG 2.2, 1.4.3)."""
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    _open(chromium, report)
    pairs = chromium.execute_script(COLOURS)
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert len(pairs) > 100
    for front, back, text in pairs:
        low, high = sorted((_channels(front), _channels(back)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (front, back, text)


def test_printing_cuts_no_figure(chromium, report):
    """In print every figure fits on a page: A4 less margins is 26 cm high, less than 1000 px."""
    _open(chromium, report)
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 718, "height": 1047, "deviceScaleFactor": 1, "mobile": False}
    )
    figures = chromium.execute_script("""return Array.from(document.querySelectorAll('figure')).map(f => {
        const box = f.getBoundingClientRect(), svg = f.querySelector('svg').getBoundingClientRect();
        return [f.id, box.height, svg.right, getComputedStyle(f).breakInside]; })""")
    pdf = base64.b64decode(chromium.execute_cdp_cmd("Page.printToPDF", {})["data"])
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert pdf.startswith(b"%PDF")
    assert len(figures) == 10
    for name, height, right, inside in figures:
        assert height <= 1000 and right <= 719 and inside == "avoid", name


def _pcapng(name, frames):
    """A pcapng file whose interface has a name and a description of one's choice."""

    def block(kind, body):
        body += b"\0" * (-len(body) % 4)
        size = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + size + body + size

    def option(code, value):
        return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)

    text = name.encode()
    blocks = [
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)),
        block(1, struct.pack("<HHI", 1, 0, 0) + option(2, text) + option(3, text) + option(0, b"")),
    ]
    for when, frame in frames:
        stamp = int(when * 1e6)
        head = struct.pack("<IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(frame), len(frame))
        blocks.append(block(6, head + frame))
    return b"".join(blocks)


def test_hostile_text_stays_text(chromium, tmp_path):
    """A script in an interface's name and description, in a file's name, and in a host's name."""
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    path = folder / "<script>alert(1)<.pcapng"
    segments = [Segment(t, f"10.0.0.{h}", 2, "10.0.0.99", 80, S, 77) for t in (1, 2) for h in (1, 2)]
    path.write_bytes(_pcapng(EVIL, [(s.time, s.frame()) for s in segments]))
    analysis = analyze(AnalyzeOptions(servers=[str(path)], kernel="6.1"))
    clients = ((f"{EVIL}</script>", '"><img src=x onerror=alert(1)>', 3, 2), ("10.0.0.2", "10.0.0.1", 3, 1))
    analysis.diagnosis.blast = BlastRadius(clients, analysis.main.tracked.first_time, (), (), 0, ())
    analysis.diagnosis.findings[0] = replace(analysis.diagnosis.findings[0], statement=f"from {EVIL}: \x1b[2J")
    write_report(analysis, str(tmp_path / "r"))
    _open(chromium, tmp_path / "r" / "report.html")
    assert chromium.execute_script("return document.querySelectorAll('script:not([type])').length") == 1
    assert chromium.execute_script("return document.querySelectorAll('img').length") == 0
    shown = chromium.find_element("tag name", "body").text
    assert shown.count(EVIL) >= 4
    assert "\\x1b[2J" in shown
    assert [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []


def _many(count):
    """SYNs from 50 sources, half of them never answered."""
    for n in range(count // 2):
        ends = (f"10.0.{n % 50}.1", 1024 + n // 50 % 60000, "10.1.0.1", 80)
        yield Segment(n * 0.01, *ends, S, n)
        yield Segment(n * 0.01 + 0.001, *ends[2:], *ends[:2], S | A, 7, n + 1)
        yield Segment(n * 0.01 + 0.002, f"10.2.{n % 50}.1", *ends[1:], S, n)


@pytest.mark.slow
def test_a_hundred_thousand_syns(chromium, tmp_path):
    """Small enough and quick enough: under 3 MB, interactive within 2 s, and no sort takes half a second."""
    path = tmp_path / "many.pcap"
    frames = [(round(s.time * 1e9), s.frame()) for s in _many(100_000)]
    pieces = [pcap(frames[at : at + 500]) for at in range(0, len(frames), 500)]
    path.write_bytes(pieces[0][:24] + b"".join(piece[24:] for piece in pieces))
    analysis = analyze(AnalyzeOptions(servers=[str(path)], kernel="6.1"))
    assert analysis.diagnosis.summary.syns == 100_000
    write_report(analysis, str(tmp_path / "r"))
    page = tmp_path / "r" / "report.html"
    assert page.stat().st_size < 3_000_000
    _open(chromium, page)
    timing = "const t = performance.timing; return t.loadEventEnd - t.navigationStart"
    assert chromium.execute_script(timing) < 2000
    clicked = chromium.execute_script(SORTS)
    assert max(clicked) < 500
    assert len(np.unique(_column(chromium, "syns", 2))) == 50
