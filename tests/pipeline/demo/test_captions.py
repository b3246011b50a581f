import numpy as np

from pipeline.demo.avatars import draw_avatar
from pipeline.demo.captions import (
    MAX_PHRASES,
    fits,
    phrases,
    truth_table,
    write_caption,
    write_phrase_captions,
    write_truthful_caption,
)
from pipeline.editing import TEMPLATES

PEOPLE = [draw_avatar(5, index).attributes for index in range(60)]


def test_a_caption_is_true_of_its_avatar():
    table = truth_table(PEOPLE)
    rng = np.random.default_rng(0)
    captions = [
        write_caption(np.flatnonzero(table[:, i]), rng, TEMPLATES) for i in range(len(PEOPLE))
    ]
    matrix = fits(captions, table)
    assert matrix.shape == (len(PEOPLE), len(PEOPLE))
    assert matrix.diagonal().all()
    assert not matrix.all()
    assert all(len(caption.phrase_ids) <= MAX_PHRASES for caption in captions)


def test_the_truth_table_follows_the_attributes():
    table = truth_table(PEOPLE)
    bank = phrases()
    sunglasses = next(n for n, p in enumerate(bank) if "sunglasses" in p.texts)
    beard = next(n for n, p in enumerate(bank) if "a beard" in p.texts)
    assert table[sunglasses].tolist() == [p.glasses == "sunglasses" for p in PEOPLE]
    assert table[beard].tolist() == ["beard" in p.facial_hair for p in PEOPLE]


def test_every_phrase_is_true_of_somebody():
    crowd = [draw_avatar(6, index).attributes for index in range(700)]
    never = [
        p.texts[0] for p, row in zip(phrases(), truth_table(crowd), strict=True) if not row.any()
    ]
    assert never == []


def test_no_synonym_stands_for_two_phrases():
    texts = [(text, phrase.leading) for phrase in phrases() for text in phrase.texts]
    assert len(texts) == len(set(texts))


def test_phrase_captions_name_different_phrases():
    captions = write_phrase_captions(30, np.random.default_rng(1))
    assert len({caption.phrase_ids for caption in captions}) == 30
    for caption in captions:
        (number,) = caption.phrase_ids
        assert any(text in caption.text for text in phrases()[number].texts)


def test_captions_of_a_series_can_be_repeated():
    assert write_truthful_caption(PEOPLE[0], 5, 0) == write_truthful_caption(PEOPLE[0], 5, 0)
    assert len({write_truthful_caption(PEOPLE[0], 5, index) for index in range(10)}) > 5
