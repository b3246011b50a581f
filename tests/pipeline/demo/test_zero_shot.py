"""Zero-shot accuracy and recall, with embeddings whose answers are known."""

import pytest
import torch

from pipeline.demo.avatars import draw_avatar
from pipeline.demo.reader import HIDDEN, VALUES
from pipeline.demo.zero_shot import embed_people, recall_among, value_phrases, zero_shot_accuracy

PEOPLE = [draw_avatar(7, index).attributes for index in range(60)]


def texts_of_axes():
    """Every value's text has a direction of its own."""
    numbered = [(name, value) for name in VALUES for value in value_phrases(name)]
    axes = torch.eye(len(numbered))
    return {
        name: {value: axes[numbered.index((name, value))] for value in value_phrases(name)}
        for name in VALUES
    }


def test_every_value_that_can_be_seen_has_a_phrase_but_ordinary_eyebrows():
    for name, values in VALUES.items():
        missing = set(values) - {HIDDEN} - set(value_phrases(name))
        assert missing == ({"normal"} if name == "eyebrows" else set())


def test_embeddings_that_say_everything_are_read_without_a_fault():
    texts = texts_of_axes()
    said = embed_people(texts, PEOPLE)
    assert set(zero_shot_accuracy(said, texts, PEOPLE).values()) == {1.0}


def test_a_wrong_value_counts_against_its_attribute_alone():
    texts = texts_of_axes()
    said = embed_people(texts, PEOPLE)
    smiling = said + 10 * texts["mouth"]["smile"]
    shares = zero_shot_accuracy(smiling, texts, PEOPLE)
    assert shares["mouth"] == pytest.approx(sum(p.mouth == "smile" for p in PEOPLE) / len(PEOPLE))
    assert shares["glasses"] == 1.0


def test_pictures_find_their_captions_among_a_group():
    rows = torch.eye(10)
    assert recall_among(rows, rows, 5) == 1.0
    swapped = rows[[1, 0, *range(2, 10)]]
    assert recall_among(rows, swapped, 5) == pytest.approx(0.8)
    # Swapped across groups, a caption is not there to be found; the rest of 3 does not count.
    rows = torch.eye(13)
    swapped = rows[[0, 6, *range(2, 6), 1, *range(7, 13)]]
    assert recall_among(rows, swapped, 5) == pytest.approx(0.8)
