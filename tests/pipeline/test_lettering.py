from pipeline.lettering import load_font, shown, wrapped

FONT = load_font(14)


def test_lines_fit_and_keep_every_word():
    text = "face with sunglasses and a very blond beard"
    lines = wrapped(text, FONT, 80)
    assert " ".join(lines) == text
    assert max(FONT.getlength(line) for line in lines) <= 80


def test_long_words_are_broken_and_not_lost():
    word = "0123456789abcdef" * 4
    lines = wrapped(word, FONT, 60)
    assert "".join(lines) == word
    assert max(FONT.getlength(line) for line in lines) <= 60


def test_paths_are_broken_after_a_separator():
    path = "holiday/2019/IMG_20190714_183322.jpg"
    lines = wrapped(path, FONT, 110)
    assert "".join(lines) == path
    assert len(lines) > 1
    assert all(line[-1] in "/_-." for line in lines[:-1])


def test_characters_without_a_glyph_are_escaped():
    assert shown("naïve café лицо", FONT) == "naïve café лицо"
    assert shown("face \u4e2d\x07", FONT) == r"face \u4e2d\x07"


def test_empty_text_has_no_line():
    assert wrapped("", FONT, 10) == []
