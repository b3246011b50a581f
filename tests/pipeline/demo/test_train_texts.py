"""The text tower learns to point where pictures differ, and its training can be interrupted."""

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from pipeline.demo.avatars import draw_avatar
from pipeline.demo.captions import phrases, truth_table
from pipeline.demo.train_texts import TextTuningConfig, start, train
from pipeline.models.registry import BUNDLED_FOLDER

CONFIG = TextTuningConfig(
    num_steps=8, batch_size=8, num_phrases=16, num_neutral=2, min_fitting=5, learning_rate=2e-3
)
DIM = 256


@pytest.fixture(scope="module")
def people():
    return [draw_avatar(5, index).attributes for index in range(300)]


@pytest.fixture(scope="module")
def embeddings(people):
    """Pictures as an ideal tower would embed them: a fixed vector for everything that is true."""
    vectors = np.random.default_rng(0).standard_normal((len(truth_table(people)), DIM))
    return torch.from_numpy((truth_table(people).T @ vectors).astype(np.float32))


@pytest.fixture
def model():
    open_clip.add_model_config(BUNDLED_FOLDER / "avatar-clip.json")
    torch.manual_seed(0)
    return open_clip.create_model("avatar-clip")


def tokenize(texts):
    return open_clip.get_tokenizer("avatar-clip")(texts)


def tuned(state, embeddings, people, config, losses):
    train(
        state,
        embeddings,
        people,
        config,
        tokenize=tokenize,
        templates=(),
        on_step=lambda _state, loss: losses.append(loss),
    )
    return state


def alignment(model, embeddings, people):
    """Mean cosine of what a phrase changes in texts and in pictures."""
    wanted = [phrase for phrase in phrases() if not phrase.leading]
    prompts = [f"face with {phrase.texts[0]}" for phrase in wanted]
    has = torch.tensor([[phrase.true_of(person) for person in people] for phrase in wanted]).float()
    units = F.normalize(embeddings, dim=-1)
    pictures = (has @ units) / has.sum(dim=1, keepdim=True) - units.mean(dim=0)
    with torch.no_grad():
        texts = F.normalize(model.encode_text(tokenize(["face", *prompts])), dim=-1)
    return float(F.cosine_similarity(texts[1:] - texts[0], pictures).nanmean())


def test_text_differences_come_to_point_where_pictures_differ(model, embeddings, people):
    before = alignment(model, embeddings, people)
    images = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("visual.")}
    tuned(start(model, CONFIG), embeddings, people, replace(CONFIG, num_steps=60), [])
    assert alignment(model, embeddings, people) > before + 0.1
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in images.items())


def test_an_interrupted_run_goes_on_to_the_same_weights(model, embeddings, people):
    whole, parts = [], []
    fresh = {name: value.clone() for name, value in model.state_dict().items()}

    class KilledError(Exception):
        pass

    def kill(state, loss):
        parts.append(loss)
        if state.step == CONFIG.num_steps // 2:
            raise KilledError

    state = start(model, CONFIG)
    with pytest.raises(KilledError):
        train(state, embeddings, people, CONFIG, tokenize=tokenize, templates=(), on_step=kill)
    kept = {k: v for k, v in state.state_dict().items() if k != "model"}
    kept["model"] = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(fresh)
    second = start(model, CONFIG)
    second.load_state_dict(kept)
    tuned(second, embeddings, people, CONFIG, parts)
    resumed = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(fresh)
    tuned(start(model, CONFIG), embeddings, people, CONFIG, whole)
    assert parts == whole
    assert all(torch.equal(resumed[k], v) for k, v in model.state_dict().items())
