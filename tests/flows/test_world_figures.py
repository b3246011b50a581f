"""The figures of the avatar world's models, as the command prints them."""

from flows.world_figures import measure_world
from pipeline.demo.reader import VALUES


def test_every_figure_is_measured_and_in_its_range():
    found = measure_world(100)
    assert found["PSNR, dB"] > 22
    for name in ("reader on drawings", "reader on reconstructions", "CLIP zero-shot"):
        assert found[name].keys() == {*VALUES, "mean"}
        assert 0.5 < min(found[name].values()) <= max(found[name].values()) <= 1
    assert found["R@1 among 100"] >= 0.8
    distances = found["FID"]
    assert distances["reconstructions"] < distances["other avatars"] < distances["samples of z"]
