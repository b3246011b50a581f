import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.encoding.rendered_relevance import ChannelProbe, RenderedConfig, agreement
from pipeline.errors import PipelineError
from pipeline.images import to_uint8
from pipeline.models.stylegan2 import Generator

SIZE, CHANNELS, IMAGES = 32, (8, 8, 8, 6), 3


class Looker:
    """Sees pictures as CLIP does: uint8 in, features out."""

    dim = 16

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.weights = torch.randn(3 * SIZE * SIZE, self.dim, generator=generator)

    def encode_images(self, pixels, _pre):
        return torch.as_tensor(pixels).flatten(1).float() / 255 @ self.weights + 1


@pytest.fixture(scope="module")
def world():
    torch.manual_seed(0)
    generator = Generator(SIZE, CHANNELS, style_dim=16, num_mapping=2).eval()
    with torch.no_grad():
        for conv in generator.styled_convs:
            conv.noise.weight.fill_(0.1)
    w_plus = torch.randn(IMAGES, generator.layout.num_w, 16)
    s = generator.to_s(w_plus).detach().numpy()
    rng = np.random.default_rng(0)
    mean = s.mean(axis=0) + 0.1 * rng.standard_normal(s.shape[1]).astype(np.float32)
    std = (s.std(axis=0) + 0.1).astype(np.float32)
    return generator, Looker(), s, w_plus.numpy(), mean, std


def probe_of(world, **settings):
    generator, clip, s, w_plus, mean, std = world
    config = RenderedConfig(**{"num_images": IMAGES, **settings})
    return ChannelProbe(generator, clip, s=s, w_plus=w_plus, mean=mean, std=std, config=config)


@torch.no_grad()
def by_the_book(world, *, mutate):
    """Every picture rendered whole, channel after channel, as the published code goes."""
    generator, clip, s, w_plus, mean, std = world
    base, rows = torch.from_numpy(s).clone(), []
    for channel in range(s.shape[1]):
        features = []
        for sign in (-1, 1):
            moved = base.clone()
            moved[:, channel] = float(mean[channel] + sign * 5 * std[channel])
            pixels = to_uint8(generator.synthesize(moved, torch.from_numpy(w_plus)))
            features.append(F.normalize(clip.encode_images(pixels, None), dim=1))
        direction = F.normalize(features[1] - features[0], dim=1).mean(dim=0)
        rows.append(F.normalize(direction, dim=0))
        if mutate:
            base[:, channel] = float(mean[channel])
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("mutate", [False, True])
def test_shared_activations_give_what_whole_renderings_give(world, mutate):
    probe = probe_of(world, published_order=mutate)
    layers = range(len(world[0].layout.layers))
    found = np.concatenate([probe.layer(index) for index in layers])
    # A picture's rounding to 8 bits turns a difference of 1e-7 into one step now and then.
    assert agreement(found, by_the_book(world, mutate=mutate)).min() > 0.9999


def test_the_mistake_changes_the_matrix(world):
    corrected, published = (
        np.concatenate([probe_of(world, published_order=order).layer(i) for i in (0, 3)])
        for order in (False, True)
    )
    assert agreement(corrected, published)[1:].min() < 0.99
    assert agreement(corrected, published)[0] == pytest.approx(1.0)


def test_layers_can_be_made_in_any_order_and_in_any_batches(world):
    one = probe_of(world, batch_size=64).layer(4)
    other = probe_of(world, batch_size=2)
    other.layer(0)
    assert agreement(one, other.layer(4)).min() > 0.9999


def test_a_channel_that_never_varies_moves_nothing(world):
    generator, clip, s, w_plus, mean, std = world
    still = std.copy()
    still[2] = 0
    config = RenderedConfig(num_images=IMAGES)
    probe = ChannelProbe(generator, clip, s=s, w_plus=w_plus, mean=mean, std=still, config=config)
    rows = probe.layer(0)
    assert (rows[2] == 0).all()
    assert np.allclose(np.linalg.norm(np.delete(rows, 2, axis=0), axis=1), 1, atol=1e-5)


def test_fewer_codes_than_asked_for_are_refused(world):
    with pytest.raises(PipelineError, match="there are 3 codes"):
        probe_of(world, num_images=4)
    with pytest.raises(PipelineError, match="strength"):
        RenderedConfig(strength=0)


def test_agreement_is_the_cosine_of_rows_and_0_without_direction():
    one = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    other = np.array([[2.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(agreement(one, other), [1.0, np.sqrt(0.5), 0.0])
