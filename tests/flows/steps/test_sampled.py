import pytest

from flows.steps.sampled import SampledSource, parse_sampled
from stores.errors import SourceError


def test_options_have_the_values_of_the_published_data_by_default():
    assert parse_sampled("sampled:200") == SampledSource(200, seed=0, truncation=1.0)


def test_options_are_read():
    assert parse_sampled("sampled:7?seed=3&truncation=0.5") == SampledSource(7, 3, 0.5)


@pytest.mark.parametrize(
    "source",
    [
        "sampled:",
        "sampled:many",
        "sampled:0",
        "sampled:5?seed",
        "sampled:5?seed=x",
        "sampled:5?a=1",
        "sampled:5?truncation=nan",
    ],
)
def test_anything_else_is_refused_with_the_form(source):
    with pytest.raises(SourceError, match="the form is sampled:COUNT"):
        parse_sampled(source)
