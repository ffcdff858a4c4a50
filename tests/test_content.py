import io
import zlib

import numpy as np
import pytest
from matplotlib import image

from camelsight.referee import content

TREE = {"a": [1.0, 2.0, float("nan")], "b": {"c": "text", "d": None}, "e": [{"f": 1}, {"f": True}], "g": [100.0, 1e-6]}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tree: tree["a"].__setitem__(0, 1.1), "a: expected 1, got 1.1 (1 of 3 differ)"),
        (lambda tree: tree["a"].append(0.0), "a has 4 entries, expected 3"),
        (lambda tree: tree["a"].__setitem__(2, 0.0), "a: expected nan, got 0 (1 of 3 differ)"),
        (lambda tree: tree["a"].__setitem__(0, "1"), "a[0]: expected '1.0', got '1'"),
        (lambda tree: tree["b"].update(c="Text"), "b.c: expected 'text', got 'Text'"),
        (lambda tree: tree["b"].pop("d"), "b has other entries: d"),
        (lambda tree: tree["b"].update(d=0.0), "b.d: expected nan, got 0 (1 of 1 differ)"),
        (lambda tree: tree["e"][1].update(f=1), "e[1].f: expected 'True', got '1'"),
    ],
)
def test_the_first_difference_of_records_is_named(change, why):
    given = {"a": TREE["a"].copy(), "b": TREE["b"].copy(), "e": [one.copy() for one in TREE["e"]], "g": TREE["g"]}
    assert content.values(TREE, given, 0.0) is None
    change(given)
    assert content.values(TREE, given, 1e-9) == why


def test_rounding_is_relative_to_the_largest_of_a_list():
    assert content.values([100.0, 1e-6], [100.0, 1e-5], 1e-7) is None
    assert content.values([100.0, 1e-6], [100.0, 1e-4], 1e-7) == "it: expected 1e-06, got 0.0001 (1 of 2 differ)"
    assert content.values({"x": 1e-6}, {"x": 1e-5}, 1e-7) == "x: expected 1e-06, got 1e-05 (1 of 1 differ)"


def test_arrays_differ_in_shape_kind_and_value():
    a = np.arange(6.0).reshape(2, 3)
    assert content.named_arrays({"a": a}, {"a": a.copy()}, 0.0) is None
    assert content.named_arrays({"a": a}, {"b": a}, 0.0) == "it has other arrays: a"
    assert content.arrays(a, a.ravel(), 0.0, "a") == "a: expected float64 (2, 3), got float64 (6,)"
    assert content.arrays(a, a.astype(str), 0.0).startswith("it: expected float64 (2, 3), got <U")
    assert content.arrays(a, a + 0.1, 0.01) == "it: expected 0, got 0.1 (6 of 6 differ)"


def test_texts_name_the_line_and_its_surroundings():
    assert content.text("a\nb\n", "a\nb\n") is None
    assert content.text("a\nbc\n", "a\nbd\n") == "line 2, 'bc': expected 'bc', got 'bd'"
    assert content.text("a\n", "a\nb\n") == "it has 2 lines, expected 1; the first of them: 'b'"


def png(pixels):
    file = io.BytesIO()
    image.imsave(file, pixels, format="png")
    return file.getvalue()


def test_pictures_may_differ_in_the_shade_of_an_edge_and_not_in_a_digit():
    pixels = np.full((4, 5, 3), 0.5)
    shade, digit = pixels.copy(), pixels.copy()
    shade[1, 2] += 0.1
    digit[1, 2] = 1.0
    assert content.picture(png(pixels), png(shade)) is None
    assert content.picture(png(pixels), png(digit)) == "1 pixels are others"
    assert content.picture(png(pixels), png(pixels[:3])) == "expected 5 × 4 pixels, got 5 × 3"
    assert content.picture(png(pixels), b"no picture").startswith("it is no picture")


def pdf(*streams, more=b""):
    packed = [b"<< /Length %d >>\nstream\n%s\nendstream" % (len(z), z) for z in map(zlib.compress, streams)]
    return b"%PDF-1.4\n" + b"\n".join(packed) + more


def test_drawings_may_differ_by_rounding_and_not_by_a_word():
    drawn = pdf(b"1.00 2.00 m (0.97) Tj")
    assert content.drawing(drawn, drawn) is None
    assert content.drawing(drawn, pdf(b"1.01 2.00 m (0.97) Tj")) is None
    for other in (b"1.00 2.10 m (0.97) Tj", b"1.00 2.00 l (0.97) Tj", b"1.00 2.00 m (0.87) Tj", b"1.00 2.00 m Tj"):
        assert content.drawing(drawn, pdf(other)) == "stream 1 of 1 is another"
    assert content.drawing(drawn, pdf(b"1.00", b"2.00")) == "expected 1 streams, got 2"
    assert content.drawing(drawn, pdf(b"1.00 2.00 m (0.97) Tj", more=b"/Annots")) == "its structure is another"
    binary = bytes(range(256)) * 10
    assert content.drawing(pdf(binary), pdf(binary[:-1] + b"x")) is None
    assert content.drawing(pdf(binary), pdf(binary[:-3] + b"xxx")) == "stream 1 of 1 is another"


def test_a_pdf_says_what_typeset_it():
    said = b"<<\n/PTEX.Fullbanner (This is pdfTeX, Version 3 (TeX Live 2022/Debian) kpathsea)\n>>"
    assert content.typesetter(pdf(b"1", more=said)) == "This is pdfTeX, Version 3 (TeX Live 2022/Debian) kpathsea"
    assert content.typesetter(pdf(b"1")) == ""
