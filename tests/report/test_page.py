"""The HTML page in Chromium: sorting, filtering, narrow screens, dark mode and printing."""

from __future__ import annotations

import base64
import io
import math
import shutil
import subprocess
from dataclasses import replace

import pytest
from PIL import Image

from bench.report.build import build_report
from bench.report.render.html import to_html
from bench.report.table import Cell, Column, Picture, Report, Section, Table

webdriver = pytest.importorskip("selenium.webdriver")
By = pytest.importorskip("selenium.webdriver.common.by").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed"
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
VALUES = [0.5, -3.0, math.nan, 12.25, 0.0001, 100.0, 7.0, 1e-9, -0.25, 3.0]
WORDS = ["n/a" if math.isnan(v) else "< 0.001" if 0 < v < 0.001 else f"{v:.2f}" for v in VALUES]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Debian's driver is given by its path, so that selenium does not download one.
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def show(chromium, tmp_path):
    """Open a report in a window of this width; the console must be empty at the end."""

    def opened(report, width=1200):
        file = tmp_path / "page.html"
        file.write_text(to_html(report), encoding="utf-8")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chromium.get(file.as_uri())
        return chromium

    yield opened
    assert chromium.get_log("browser") == []
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def small() -> Report:
    """Return a report with ten rows of values with different texts, one of them undefined."""
    rows = tuple(
        (Cell(f"model {i}"), Cell(word, {"value": value}), Cell(f"flag {i % 3}"))
        for i, (word, value) in enumerate(zip(WORDS, VALUES, strict=True))
    )
    columns = (Column("a", "model"), Column("b", "value", numeric=True), Column("c", "flags"))
    table = Table("t", "Ten rows", columns, rows)
    folded = replace(table, name="folded", title="Appendix of ten rows")
    return Report("Small", (Section("S", (table,), appendix=(folded,)),))


def column(page, number, table="t"):
    cells = page.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr > :nth-child({number})")
    return [cell.text for cell in cells if cell.is_displayed()]


def heading(page, number):
    return page.find_element(By.CSS_SELECTOR, f"#t thead th:nth-child({number}) button")


def order(page, number):
    head = page.find_element(By.CSS_SELECTOR, f"#t thead th:nth-child({number})")
    return head.get_attribute("aria-sort")


def by_value(reverse):
    known = [i for i, value in enumerate(VALUES) if not math.isnan(value)]
    ranked = sorted(known, key=lambda i: VALUES[i], reverse=reverse)
    return [WORDS[i] for i in ranked] + ["n/a"]


def shades(png):
    picture = Image.open(io.BytesIO(png)).convert("L")
    return picture.histogram(), picture.size


# ------------------------------------------------------------------ sorting


@pytest.mark.parametrize(
    "press", ["click", Keys.ENTER, Keys.SPACE], ids=["click", "enter", "space"]
)
def test_numbers_sort_as_numbers_in_both_directions_and_back(show, press):
    page = show(small())
    assert column(page, 2) == WORDS

    def act():
        button = heading(page, 2)
        button.click() if press == "click" else button.send_keys(press)

    act()
    assert column(page, 2) == by_value(reverse=False)
    assert order(page, 2) == "ascending"
    act()
    assert column(page, 2) == by_value(reverse=True)
    assert order(page, 2) == "descending"
    act()
    assert column(page, 2) == WORDS
    assert order(page, 2) is None


def test_text_is_sorted_as_text_and_equal_rows_keep_their_order(show):
    page = show(small())
    heading(page, 3).click()
    assert column(page, 3) == sorted(f"flag {i % 3}" for i in range(10))
    assert column(page, 1)[:4] == ["model 0", "model 3", "model 6", "model 9"]
    # Only one column is sorted at a time.
    heading(page, 1).click()
    assert (order(page, 1), order(page, 3)) == ("ascending", None)


def test_headings_are_reached_by_tab_alone(show):
    page = show(small())
    reached = []
    for _ in range(12):
        page.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(page.switch_to.active_element.text)
    assert [word for word in reached if word in ("model", "value", "flags")][:3] == [
        "model",
        "value",
        "flags",
    ]


# ------------------------------------------------------------------ filtering


def test_a_filter_keeps_the_rows_with_all_its_words_and_says_how_many(show):
    page = show(small())
    field = page.find_element(By.CSS_SELECTOR, ".filter input")
    count = page.find_element(By.CSS_SELECTOR, ".filter output")
    assert field.accessible_name == "Filter rows"
    assert count.get_attribute("aria-live") == "polite"
    assert count.text == "10 rows"
    field.send_keys("100.0  MODEL")
    assert column(page, 1) == ["model 5"]
    assert count.text == "1 of 10 rows"
    heading(page, 2).click()
    assert column(page, 1) == ["model 5"]
    field.clear()
    field.send_keys("nothing like it")
    assert column(page, 1) == []
    assert count.text == "0 of 10 rows"


def test_a_short_table_has_no_filter(show):
    report = small()
    table = report.sections[0].tables[0]
    short = replace(table, rows=table.rows[:8])
    page = show(Report("R", (Section("S", (short,)),)))
    assert page.find_elements(By.CSS_SELECTOR, ".filter") == []


# ------------------------------------------------------------------ the appendix


def test_the_appendix_opens_on_its_title_and_on_a_link_into_it(show):
    page = show(small())
    assert column(page, 1, "folded") == []
    page.find_element(By.CSS_SELECTOR, "summary").click()
    assert len(column(page, 1, "folded")) == 10
    page = show(small())
    page.find_element(By.CSS_SELECTOR, "nav a[href='#folded']").click()
    assert len(column(page, 1, "folded")) == 10


# ------------------------------------------------------------------ looks


@pytest.fixture
def report(bench):
    bench.cohort()
    arms = [bench.arm(f"a-model-with-a-long-name-{i}") for i in range(6)]
    bench.grid(arms)
    return build_report(bench.store, metric="all")


def test_a_whole_report_is_as_wide_as_a_phone_and_not_wider(show, report):
    for width in (375, 1200):
        page = show(report, width)
        root = "document.documentElement"
        assert page.execute_script(f"return {root}.scrollWidth - {root}.clientWidth") == 0
        grey, (wide, high) = shades(page.get_screenshot_as_png())
        assert (wide, high) == (width, 900)
        # A blank page has only one shade.
        assert sum(n > 0 for n in grey) > 50
        assert max(grey) < 0.97 * wide * high


def test_a_page_is_dark_in_dark_mode(show, report):
    page = show(report)
    bright = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        grey, (wide, high) = shades(page.get_screenshot_as_png())
        bright[scheme] = sum(i * n for i, n in enumerate(grey)) / (wide * high)
    assert bright["light"] > 200
    assert bright["dark"] < 60


def test_bitmaps_and_vector_graphics_are_shown(show):
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(out, "PNG")
    svg = (
        b'<svg xmlns="http://www.w3.org/2000/svg" width="50" height="20">'
        b'<style>rect {fill: #00f}</style><rect style="opacity: 1" width="50" height="20"/></svg>'
    )
    pictures = (
        Picture("A scan", out.getvalue(), "A red scan"),
        Picture("A figure", svg, "A blue figure", "image/svg+xml"),
    )
    page = show(Report("R", (Section("S", (), pictures=pictures),)))
    images = page.find_elements(By.TAG_NAME, "img")
    assert [(i.rect["width"], i.rect["height"]) for i in images] == [(40, 30), (50, 20)]
    for image, colour in zip(images, [(255, 0, 0), (0, 0, 255)], strict=True):
        shot = Image.open(io.BytesIO(image.screenshot_as_png)).convert("RGB")
        assert shot.getpixel((10, 10)) == colour


def test_only_the_script_of_the_page_runs(show, chromium):
    nasty = "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
    table = Table(nasty, nasty, (Column("a", nasty),), ((Cell(nasty),), (Cell("b"),)))
    page = show(Report("R", (Section(nasty, (table,), (nasty,)),)))
    assert page.title == "R"
    assert page.find_element(By.CSS_SELECTOR, "tbody th").text == nasty
    # Even if another script was inserted, the page's policy would not allow it.
    page.execute_script(
        "const s = document.createElement('script'); s.textContent = \"document.title = 'run'\";"
        "document.body.append(s)"
    )
    assert page.title == "R"
    (refused,) = page.get_log("browser")
    assert "Content Security Policy" in refused["message"]


def test_a_printed_page_contains_every_number_and_collapsed_tables(show, report, tmp_path):
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed")
    section = report.sections[0]
    whole = replace(section, appendix=(*section.appendix, small().sections[0].tables[0]))
    page = show(Report("R", (whole,)))
    found = page.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    (tmp_path / "page.pdf").write_bytes(base64.b64decode(found["data"]))
    words = subprocess.run(
        ["pdftotext", "-layout", "page.pdf", "-"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for table in whole.tables:
        for row in table.rows:
            for cell in row[1:]:
                assert all(word in words for word in cell.text.split()), (table.name, cell.text)
    assert "Filter rows" not in words
    # Printing does not change the page.
    assert page.find_elements(By.CSS_SELECTOR, "details[open]") == []
