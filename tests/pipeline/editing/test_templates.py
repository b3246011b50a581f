"""The prompt bank against the digest recorded from the official code."""

import zlib

from pipeline.editing.templates import TEMPLATES


def test_bank_is_the_published_one_sentence_for_sentence():
    assert len(TEMPLATES) == 79
    assert zlib.crc32("\n".join(TEMPLATES).encode()) == 3858300245  # golden/inference.npz


def test_every_sentence_takes_exactly_one_name():
    assert all(line.count("{}") == 1 for line in TEMPLATES)
    assert "a photo of many {}." not in TEMPLATES
