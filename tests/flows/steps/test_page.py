"""The page: what sections become."""

import re

import numpy as np

from flows.steps.page import ReportPicture, ReportTable, Section, Share, write_report
from pipeline.images import encode_png


def written(tmp_path, *sections):
    return write_report(tmp_path, title="T", lead="L", sections=sections).read_text()


def png(width):
    return encode_png(np.zeros((4, width, 3), dtype=np.uint8))


def test_texts_are_shown_as_they_are_and_never_run(tmp_path):
    evil = "<script>alert(1)</script>"
    table = ReportTable(heads=[evil], lines=[[evil, evil]], caption=evil)
    picture = ReportPicture(png(4), evil)
    section = Section(
        title=evil, text=evil, figures={evil: evil}, table={evil: evil}, tables=[table],
        pictures=[picture], gallery=[picture],
    )  # fmt: skip
    html = written(tmp_path, section)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 14


def test_a_table_of_tables_has_their_names_as_heads(tmp_path):
    html = written(tmp_path, Section(title="fit", table={"a": {"mse_x": 1.0}, "b": {"cos": 0.25}}))
    assert re.findall(r'<th scope="col">(.*?)</th>', html) == ["", "mse x", "cos"]
    assert "0.250" in html


def test_shares_below_their_goal_are_marked(tmp_path):
    lines = [["good", Share(value=0.9, goal=0.8)], ["bad", Share(value=0.7, goal=0.8)]]
    html = written(tmp_path, Section(title="t", tables=[ReportTable(heads=["", "s"], lines=lines)]))
    assert 'class="share low" style="--part: 70.0%">70.0 %<' in html
    assert 'class="share" style="--part: 90.0%">90.0 %<' in html


def test_wide_pictures_scroll_and_narrow_ones_shrink(tmp_path):
    pictures = [ReportPicture(png(2000), "sheet"), ReportPicture(png(800), "plot")]
    html = written(tmp_path, Section(title="t", pictures=pictures))
    assert re.findall(r'<figure class="(\w+)">', html) == ["wide", "plot"]


def test_numbers_are_written_for_people(tmp_path):
    line = ["x", 1234567, 0.12345, 523.7, {"a": 1, "b": 0.5}, "text"]
    html = written(tmp_path, Section(title="t", tables=[ReportTable(heads=(), lines=[line])]))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert cells == ["1,234,567", "0.123", "524", "a 1, b 0.500", "text"]
