"""`evaluate --prompts` and its page on a small store of avatars, from the command line."""

import csv
import json
import re
import shutil
from html import escape, unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from pipeline.demo.prompts import PROMPTS
from pipeline.images import decode_image

PROMPT_FILE = """\
# a comment

face with sunglasses
  face with a beard
quantum chromodynamics
"""
ASKED = ["face with sunglasses", "face with a beard", "quantum chromodynamics"]
SETTING = ("--images", 4, "--strength", 1.5, "--threshold", 0.01)
PHONE_PX = 390


@pytest.fixture(scope="module")
def world(tmp_path_factory, call, encoded):
    """A store with all that evaluation takes, and two runs on it."""
    folder = tmp_path_factory.mktemp("evaluation")
    shutil.copytree(encoded, folder / "faces.store")
    (folder / "prompts.txt").write_text(PROMPT_FILE)
    call("relevance", "faces.store", folder=folder)
    call("index", "faces.store", "--neighbours", 8, folder=folder)
    training = ("--steps", 60, "--batch-size", 16)
    call("train", "faces.store", "run", *training, folder=folder)
    call("train", "faces.store", "told", *training, "--condition", "target", folder=folder)
    return folder


@pytest.fixture(scope="module")
def measured(world, call):
    """The evaluation of the run, with curves and both comparisons."""
    peers = ("--compare", "global", "--compare", "told")
    run = call("evaluate", "run", "--prompts", "prompts.txt", *SETTING, *peers, "--json",
               folder=world)  # fmt: skip
    return json.loads(run.out)


@pytest.fixture(scope="module")
def page(world, call, faces, measured):  # noqa: ARG001 - evaluated before it is shown
    """The report page about that run."""
    captions = faces / "attributes.jsonl"
    call("alignment", "faces.store", "--captions", captions, "--points", 30, "--out", "run",
         folder=world)  # fmt: skip
    call("report", "run", "--out", "page", folder=world)
    return world / "page" / "report.html"


def test_every_prompt_is_listed_with_its_figures(measured):
    rows = {row["prompt"]: row for row in measured["prompts"]}
    assert list(rows) == ASKED
    for row in rows.values():
        assert 0 <= row["preservation"] <= 1
        assert -1 <= row["directional"] <= 1
        assert row["distance"] > 0
        assert 0 < row["channels"] < 800
        assert 0 < row["rows"] <= 4
    assert 0 <= rows["face with sunglasses"]["success"] <= 1
    assert "success" not in rows["quantum chromodynamics"]


def test_means_are_over_the_prompts_that_have_the_measure(measured):
    known = [row["success"] for row in measured["prompts"] if "success" in row]
    kept = [row["preservation"] for row in measured["prompts"]]
    assert measured["edits"]["success"] == pytest.approx(np.mean(known), abs=1e-3)
    assert measured["edits"]["preservation"] == pytest.approx(np.mean(kept), abs=1e-3)


def test_the_baseline_of_reconstruction_is_told(measured):
    baseline = measured["reconstruction"]
    assert baseline["PSNR, dB"] > 18
    assert 0.7 < baseline["attributes kept"] <= 1
    assert 0.8 < baseline["CLIP cosine"] <= 1


def test_curves_have_every_strength_with_every_threshold(measured):
    places = {(row["strength"], row["threshold"]) for row in measured["curve"]}
    assert len(places) == len(measured["curve"]) == 25
    moved = {place: row["distance"] for place, row in zip(places, measured["curve"], strict=True)}
    assert len(set(moved.values())) > 5
    by_strength = [row for row in measured["curve"] if row["threshold"] == 0.0]
    distances = [row["distance"] for row in sorted(by_strength, key=lambda r: r["strength"])]
    assert distances == sorted(distances)


def test_peers_are_measured_on_the_same_prompts_where_they_keep_as_much(measured):
    own, *peers = measured["comparison"]["methods"]
    assert [own["method"], *(peer["method"] for peer in peers)] == ["run", "global", "told"]
    assert own["success"] == measured["edits"]["success"]
    for peer in peers:
        assert [row["prompt"] for row in peer["prompts"]] == ASKED
        assert [r["rows"] for r in peer["prompts"]] == [r["rows"] for r in own["prompts"]]
        # Twelve pictures have few attribute values: one of them is more than the tolerance.
        assert peer["preservation"] == pytest.approx(own["preservation"], abs=0.06)
        assert peer["strength"] != own["strength"]


def test_json_table_and_pictures_say_the_same(world, measured):
    saved = json.loads((world / "run/evaluation.json").read_text())
    assert saved["result"] == measured
    assert saved["config"]["edits"]["prompts"] == ASKED
    with (world / "run/edits.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["prompt"] for row in table] == [*ASKED, "mean"]
    assert float(table[-1]["success"]) == measured["edits"]["success"]
    assert float(table[1]["channels"]) == measured["prompts"][1]["channels"]
    for name in ("edits.png", "tradeoff.png", "comparison.png"):
        assert len(np.unique(decode_image((world / "run" / name).read_bytes()))) > 20
    for row in measured["prompts"]:
        picture = decode_image((world / "run" / row["picture"]).read_bytes())
        before, after = np.split(picture.astype(int), 2)
        assert np.abs(before - after).mean() > 0.5


def test_verdicts_count_every_prompt_that_the_reader_knows(measured):
    known = [row for row in measured["prompts"] if "success" in row]
    for found in measured["comparison"]["verdicts"]:
        assert found["ahead"] + found["even"] + found["behind"] == len(known)
        assert len(found["lost"]) == found["behind"]


def test_global_directions_are_evaluated_by_the_same_command(world, call):
    options = ("--prompts", "prompts.txt", "--method", "global", "--top-k", 20, "--images", 2)
    run = call("evaluate", "run", *options, "--out", "by-global", folder=world)
    result = json.loads((world / "by-global/evaluation.json").read_text())["result"]
    shown = re.search(r"^ *face with sunglasses +(.*)$", run.out, re.MULTILINE)
    assert shown[1].split()[0] == str(result["prompts"][0]["rows"])
    assert all(row["channels"] == pytest.approx(20, abs=1) for row in result["prompts"])
    assert "comparison" not in result
    assert not result["curve"]
    assert (world / "by-global/edits.csv").exists()


def test_a_dry_run_shows_the_standard_prompts_and_writes_nothing(world, call):
    options = ("--prompts", "standard", "--dry-run", "--out", "dry")
    run = call("evaluate", "run", *options, folder=world)
    assert all(prompt in run.err for prompt in PROMPTS)
    assert not (world / "dry").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "Give a text file with one prompt a line, or `standard`"),
        (b"\xff\xfe\x00", "Give a text file with one prompt a line, or `standard`"),
        (b"", "at least one"),
        (b"# nothing but a comment\n", "at least one"),
        (b"bald face\nbald face\n", "bald face stands there twice"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused(world, call, content, message):
    path = world / "bad.txt"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    run = call("evaluate", "run", "--prompts", "bad.txt", "--out", "bad", code=2, folder=world)
    assert message in run.err
    assert not (world / "bad").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--curves",), "give --prompts"),
        (("--compare", "global"), "give --prompts"),
        (("--prompts", "prompts.txt", "--top-k", 3, "--threshold", 0.1), "exclude each other"),
        (("--prompts", "prompts.txt", "--images", 1, "--compare", "nowhere"), "no finished run"),
    ],
)
def test_options_that_do_not_fit_are_refused(world, call, options, message):
    run = call("evaluate", "run", *options, "--out", "wrong", code=2, folder=world)
    assert message in run.err
    assert not (world / "wrong" / "evaluation.json").exists()


def test_runs_of_two_stores_are_not_compared(world, call):
    shutil.copytree(world / "faces.store", world / "other.store")
    call("train", "other.store", "other", "--steps", 2, "--batch-size", 4, folder=world)
    options = ("--prompts", "prompts.txt", "--images", 1, "--compare", "other")
    run = call("evaluate", "run", *options, "--out", "wrong", code=2, folder=world)
    assert "compare runs of one store" in run.err


def test_the_page_shows_everything_that_was_measured(page, measured):
    html = page.read_text()
    for title in ("Edits by text", "Strength and threshold", "Compared with", "Training",
                  "CLIP space and delta space", "The store", "Throughput", "Images",
                  "Embedding map", "Pairs"):  # fmt: skip
        assert f">{title}</h2>" in html
    verdicts = measured["comparison"]["verdicts"]
    assert all(escape(found["text"]) in html for found in verdicts)
    for prompt in ASKED:
        lost = sum(row["prompt"] == prompt for found in verdicts for row in found["lost"])
        # The figures, and three tables of the comparison.
        assert html.count(f">{prompt}</th>") == 4 + lost
    assert f"{measured['edits']['success']:.1%}" in html
    assert "96 inputs = 96 rows + 0 rejects + 0 duplicates" in html


class _Addresses(HTMLParser):
    """Everything that a page would load or lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found += [f"<{tag}>"] if tag in ("script", "link", "iframe", "object") else []
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset")]


def test_the_page_names_nothing_outside_itself(page):
    addresses = _Addresses()
    addresses.feed(page.read_text())
    assert addresses.found
    assert all(text.startswith(("data:image/png;base64,", "#")) for text in addresses.found)
    assert not re.search(r"url\(|@import", page.read_text())


PROBE = """<!doctype html><title></title><iframe style="border: 0" width={width} height=2400
  srcdoc="{page}"></iframe><script>addEventListener("load", () => {{
    const {{contentDocument: inner, contentWindow: view}} = document.querySelector("iframe");
    document.title = JSON.stringify({{
      shown: view.innerWidth,
      wide: inner.documentElement.scrollWidth,
      pictures: [...inner.images].filter(image => image.naturalWidth > 0).length,
      loaded: view.performance.getEntriesByType("resource").map(entry => entry.name),
    }});
}})</script>"""


def probed(chromium, html, folder):
    """What the browser finds in a frame as wide as a telephone."""
    outer = folder / "probe.html"
    outer.write_text(PROBE.format(width=PHONE_PX, page=escape(html)))
    dom = chromium(outer, 800, "--dump-dom")
    return json.loads(unescape(re.search(r"<title>(.*?)</title>", dom)[1]))


def with_part(html, part, *, guarded=True):
    """The page with one more part, and without its policy where it is not `guarded`."""
    policy = "" if guarded else r'<meta http-equiv="Content-Security-Policy"[^>]*>'
    return re.sub(policy, "", html, count=1).replace("</body>", f"{part}</body>")


def test_on_a_phone_nothing_is_wider_than_the_screen(page, chromium, tmp_path):
    html = page.read_text()
    found = probed(chromium, html, tmp_path)
    assert found["shown"] == found["wide"] == PHONE_PX
    assert found["pictures"] == html.count("<img ")
    broad = with_part(html, "<div style='width: 500px'>too wide</div>")
    assert probed(chromium, broad, tmp_path)["wide"] > PHONE_PX


def test_the_browser_loads_nothing_for_the_page_and_could_not(page, chromium, asked, tmp_path):
    address, paths = asked
    html = page.read_text()
    assert all(name.startswith("data:") for name in probed(chromium, html, tmp_path)["loaded"])
    picture = f"<img src='{address}/picture.png'>"
    probed(chromium, with_part(html, picture), tmp_path)
    assert "/picture.png" not in paths
    probed(chromium, with_part(html, picture, guarded=False), tmp_path)
    assert "/picture.png" in paths


@pytest.mark.parametrize("width", [PHONE_PX, 1200])
def test_the_screenshot_shows_pictures_on_paper(page, chromium, tmp_path, width):
    chromium(page, width, f"--screenshot={tmp_path / 'page.png'}")
    pixels = decode_image((tmp_path / "page.png").read_bytes())
    assert pixels.shape == (2400, width, 3)
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    assert len(colours) > 1000
    assert 0.1 < counts.max() / counts.sum() < 0.95
    thirds = np.array_split(pixels, 3)
    assert all(len(np.unique(third.reshape(-1, 3), axis=0)) > 50 for third in thirds)


def test_dark_screens_get_a_dark_page(page, chromium, tmp_path):
    shots = []
    for mode in (
        "--blink-settings=preferredColorScheme=1",
        "--blink-settings=preferredColorScheme=0",
    ):
        chromium(page, PHONE_PX, mode, f"--screenshot={tmp_path / 'page.png'}")
        corner = decode_image((tmp_path / "page.png").read_bytes())[:8, :8]
        shots.append(float(corner.mean()))
    assert shots[0] > 220
    assert shots[1] < 60
