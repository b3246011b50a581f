from flows.steps.progress import WAITS, limiting_stage
from pipeline.encoding import STAGES


def test_the_limit_is_the_longest_stage_behind_the_longest_wait():
    seconds = {"wait for images": 1.0, "wait for models": 8.0, "decode": 30.0, "clip": 5, "e4e": 9}
    assert limiting_stage(seconds) == "e4e"
    assert limiting_stage(seconds | {"wait for images": 9.0, "read": 2.0}) == "decode"
    assert limiting_stage({"wait for disk": 1.0, "write": 2.0, "clip": 3.0}) == "write"


def test_a_run_that_encoded_nothing_has_no_limit():
    assert limiting_stage({"scan": 1.0}) == ""


def test_every_stage_of_the_models_is_known():
    assert WAITS["wait for models"] == STAGES
