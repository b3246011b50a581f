"""Where one way to edit is ahead of another, and what is said of the cause."""

import pytest

from flows.steps.edit_verdict import verdict


def prompt(name, success, *, directional=0.2, distance=1.0, preservation=0.9):
    return {
        "prompt": name,
        "success": success,
        "preservation": preservation,
        "directional": directional,
        "distance": distance,
    }


def method(name, *prompts):
    known = [row["success"] for row in prompts if "success" in row]
    return {"method": name, "success": sum(known) / len(known), "prompts": list(prompts)}


def test_prompts_are_counted_and_the_lost_ones_listed_worst_first():
    own = method("run", prompt("a", 0.9), prompt("b", 0.5), prompt("c", 0.2), prompt("d", 0.1))
    peer = method("global", prompt("a", 0.4), prompt("b", 0.55), prompt("c", 0.4), prompt("d", 0.9))
    found = verdict(own, peer, "success")
    assert (found["ahead"], found["even"], found["behind"]) == (1, 1, 2)
    assert [row["prompt"] for row in found["lost"]] == ["d", "c"]
    assert (found["lost"][0]["success"], found["lost"][0]["other success"]) == (0.1, 0.9)
    assert "(success 42.5%) is behind global (56.2%)" in found["text"]
    assert found["difference"] == pytest.approx(-0.1375)


@pytest.mark.parametrize(
    ("mine", "cause"),
    [
        ({"distance": 0.5}, "its change is shorter"),
        ({"directional": 0.1}, "its change follows the text less"),
        ({"preservation": 0.97}, "the other one keeps less here"),
        ({}, "neither length, direction nor what is kept tells them apart"),
        (
            {"distance": 0.5, "directional": 0.1},
            "its change is shorter; its change follows the text less",
        ),
    ],
)
def test_the_cause_is_what_the_measures_tell(mine, cause):
    own, peer = method("run", prompt("a", 0.1, **mine)), method("global", prompt("a", 0.9))
    assert verdict(own, peer, "success")["lost"][0]["cause"] == cause


def test_prompts_without_the_measure_do_not_count():
    unknown = {"prompt": "x", "directional": 0.1, "distance": 1.0}
    own = method("run", prompt("a", 0.9), unknown)
    peer = method("global", prompt("a", 0.1), unknown)
    found = verdict(own, peer, "success")
    assert (found["ahead"], found["even"], found["behind"]) == (1, 0, 0)
    assert "is ahead of global" in found["text"]
