"""Files of figures are complete and reproducible, and no text is cut off."""

import io
import itertools
import re
import xml.etree.ElementTree as ET
import zlib

import pytest
from PIL import Image

from bench.report.plots import FORMATS, KINDS, FigureRequest, figure
from bench.report.plots.style import MARKERS, model_style, styled
from tests.report.conftest import DISEASE
from tests.report.figures import costs, gathered, three

pytestmark = pytest.mark.slow

NASTY = "we$rd_x$ & <b> \\frac"


def everything(bench):
    """Add cohorts of each task, with difficult names; return the request for each kind."""
    fingerprint = bench.cohort(name="ages", n_test=60)
    names = ("good", NASTY, "_hidden", "a-model-with-a-very-long-name-" * 3)
    bench.grid([bench.arm(name, fingerprint) for name in names], sizes=(24, 48, 96))
    fingerprint = bench.cohort(name="classes", task=DISEASE, classes=["C$N", "A_D$"])
    arms = [bench.arm(name, fingerprint, task=DISEASE) for name in names]
    bench.grid(arms, sizes=(24, 48), errors=[2, 3, 4, 5])
    for k in range(5):
        fingerprint = bench.cohort(name=f"cohort-{k}", n_test=30)
        arms = [bench.arm(name, fingerprint) for name in names]
        bench.grid(arms, sizes=(24, 48, 96), seeds=(0, 1))
    command = bench.ask(arms[0], sizes=(96,))
    costs(bench, command, arms[0], 3.0, 1_000_000, size=96)
    costs(bench, command, arms[1], 9.0, 5_000_000, size=96)
    requests = {name: {"dataset": "ages"} for name in KINDS}
    requests |= {name: {"dataset": "classes"} for name in ("roc", "calibration")}
    return requests | {"pareto": {"dataset": "cohort-4"}}


def font_kinds(pdf):
    """Return the subtypes of the fonts in a PDF, including those in compressed objects."""
    parts = [pdf]
    for found in re.finditer(rb"stream\r?\n(.*?)endstream", pdf, re.S):
        try:
            parts.append(zlib.decompress(found[1]))
        except zlib.error:
            continue
    whole = b"".join(parts)
    return set(re.findall(rb"/Subtype\s*/(Type\w+|TrueType|CIDFontType\w+)", whole)), whole


def test_every_kind_is_a_complete_and_reproducible_file_with_fonts(bench, reading):
    requests = everything(bench)
    store = reading()
    assert set(requests) == set(KINDS)
    for name, where in requests.items():
        made = {f: figure(store, name, FigureRequest(where=where), f) for f in FORMATS}
        pdf = made["pdf"].data
        assert pdf.startswith(b"%PDF-")
        assert pdf.rstrip().endswith(b"%%EOF")
        kinds, whole = font_kinds(pdf)
        assert kinds
        assert b"Type3" not in kinds, name
        assert b"/FontFile2" in whole
        root = ET.fromstring(made["svg"].data)
        assert root.tag.endswith("svg")
        # Glyphs are paths, so that no font is needed, and there are no bitmaps.
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert not tags & {"text", "image", "script"}, name
        with Image.open(io.BytesIO(made["png"].data)) as image:
            assert image.format == "PNG"
            assert image.width in (875, 1750)
        assert len({each.description for each in made.values()}) == 1
        for format_, drawn in made.items():
            assert figure(store, name, FigureRequest(where=where), format_).data == drawn.data, name
        assert b"CreationDate" not in pdf
        assert "nan" not in made["pdf"].description


@pytest.fixture
def texts_of(monkeypatch):
    """Draw a figure and return all its texts with their bounding boxes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    drawn_texts = []
    plain_draw = Text.draw

    def draw(self, renderer, *args, **options):
        drawn_texts.append(self)
        return plain_draw(self, renderer, *args, **options)

    monkeypatch.setattr(Text, "draw", draw)

    def texts(drawn):
        canvas = FigureCanvasAgg(drawn)
        canvas.draw()
        drawn_texts.clear()
        canvas.draw()
        seen = {id(text): text for text in drawn_texts if text.get_visible()}.values()
        renderer = canvas.get_renderer()
        return [(t, t.get_window_extent(renderer)) for t in seen if t.get_text().strip()]

    return texts


def test_no_text_is_cut_off_or_overlaps_and_names_are_unchanged(bench, reading, texts_of):
    requests = everything(bench)
    store = reading()
    for name, where in requests.items():
        data = gathered(store, name, where=where)
        with styled():
            drawn = KINDS[name].steps.draw(data)
            found = texts_of(drawn)
        width, height = drawn.get_size_inches() * drawn.dpi
        for text, box in found:
            assert box.x0 >= -1, (name, text.get_text())
            assert box.y0 >= -1, (name, text.get_text())
            assert box.x1 <= width + 1, (name, text.get_text())
            assert box.y1 <= height + 1, (name, text.get_text())
        level = [(t.get_text(), box) for t, box in found if not t.get_rotation() % 90]
        for (one, a), (two, b) in itertools.combinations(level, 2):
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            along = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across < 1.5 or along < 1.5, (name, one, two)
        whole = "".join("".join(text.get_text().split()) for text, _ in found)
        if name != "subjects":
            assert "".join(NASTY.split()) in whole, name
            assert "a-model-with-a-very-long-name-" * 3 in whole, name


def test_twenty_models_have_styles_that_differ_without_colour():
    styles = [model_style(i) for i in range(20)]
    assert len(set(styles)) == 20
    assert len({(each.marker, str(each.dash)) for each in styles[: len(MARKERS)]}) == len(MARKERS)
    for i in range(19):
        one, two = styles[i], styles[i + 1]
        assert one.marker != two.marker
        assert one.colour != two.colour
        assert str(one.dash) != str(two.dash)


def test_the_users_settings_of_matplotlib_have_no_effect(bench, reading):
    import matplotlib

    three(bench)
    store = reading()
    plain = figure(store, "learning-curves", FigureRequest(), "svg").data
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "none", "lines.linewidth": 9}):
        assert figure(store, "learning-curves", FigureRequest(), "svg").data == plain
        assert matplotlib.rcParams["font.size"] == 30
