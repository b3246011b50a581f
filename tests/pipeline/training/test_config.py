import pytest

from pipeline.errors import PipelineError
from pipeline.training.config import TrainConfig, resolve


def test_the_official_recipe_is_the_published_run():
    recipe = resolve(TrainConfig(recipe="official"), 258_000)
    assert recipe.steps == 201_562
    assert recipe.batch_size == 64
    assert not recipe.z_score
    assert recipe.ema_decay == 0
    assert (recipe.pixelnorm_axis, recipe.linear_head, recipe.min_hidden) == ("layers", False, 0)
    assert {recipe.learning_rate_at(step) for step in (0, 1000, 201_561)} == {0.5}


def test_the_fast_rate_rises_then_falls_to_almost_nothing():
    recipe = resolve(TrainConfig(recipe="fast", steps=1000, learning_rate=0.4), 6000)
    rates = [recipe.learning_rate_at(step) for step in range(1000)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.4)
    assert 0 < rates[0] < rates[peak // 2] < rates[peak]
    assert all(
        before >= after for before, after in zip(rates[peak:], rates[peak + 1 :], strict=False)
    )
    assert rates[-1] < 1e-5


def test_settings_that_are_given_win_over_the_recipe():
    config = TrainConfig(recipe="official", steps=7, batch_size=3, z_score=True, ema_decay=0.5)
    recipe = resolve(config, 100)
    assert (recipe.steps, recipe.batch_size, recipe.z_score, recipe.ema_decay) == (7, 3, True, 0.5)


def test_wrong_settings_are_refused_all_at_once():
    with pytest.raises(PipelineError, match=r"steps is 0.*learning_rate is -1"):
        TrainConfig(steps=0, learning_rate=-1.0)
    with pytest.raises(PipelineError, match="min_hidden is -1"):
        TrainConfig(min_hidden=-1)
    with pytest.raises(PipelineError, match="recipe is 'slow'"):
        TrainConfig(recipe="slow")  # pyright: ignore[reportArgumentType] - the point of the test
    with pytest.raises(PipelineError, match="one of them positive"):
        TrainConfig(mse_weight=0, cosine_weight=0)
