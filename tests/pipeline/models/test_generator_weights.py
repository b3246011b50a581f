import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import WeightsError
from pipeline.models.stylegan2 import Generator
from pipeline.models.weights import load_generator

SIZE, CHANNELS, DIM = 32, (12, 12, 12, 8), 16


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return Generator(SIZE, CHANNELS, DIM, num_mapping=3).eval()


@pytest.fixture
def state(generator):
    return {key: value.clone() for key, value in generator.state_dict().items()}


def put(folder, content):
    path = folder / "generator.pt"
    torch.save(content, path)
    return path


def image_of(generator):
    z = torch.randn(1, DIM, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return generator(generator.broadcast(generator.map(z)))


def test_a_g_ema_checkpoint_gives_the_same_images_frozen(tmp_path, generator, state):
    center = torch.randn(DIM)
    loaded, info = load_generator(put(tmp_path, {"g_ema": state, "latent_avg": center}))
    assert (loaded.size, loaded.channels, loaded.style_dim) == (SIZE, CHANNELS, DIM)
    assert torch.equal(image_of(loaded), image_of(generator))
    assert torch.equal(loaded.latent_avg, center)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert len(info.sha256) == 64


def test_a_bare_state_dict_gets_the_sampled_mean_of_w(tmp_path, generator, state):
    loaded, _ = load_generator(put(tmp_path, state))
    again, _ = load_generator(put(tmp_path, state))
    assert torch.equal(loaded.latent_avg, again.latent_avg)
    with torch.no_grad():
        mean = generator.map(torch.randn(20_000, DIM)).mean(dim=0)
    torch.testing.assert_close(loaded.latent_avg, mean, atol=0.2, rtol=0)


def test_safetensors_carry_latent_avg_among_the_tensors(tmp_path, generator, state):
    path = tmp_path / "generator.safetensors"
    save_file({**state, "latent_avg": torch.full((DIM,), 2.0)}, path)
    loaded, _ = load_generator(path)
    assert torch.equal(image_of(loaded), image_of(generator))
    assert torch.equal(loaded.latent_avg, torch.full((DIM,), 2.0))


def test_the_decoder_of_an_e4e_checkpoint_is_a_generator(tmp_path, generator, state):
    center = torch.randn(DIM)
    content = {
        "state_dict": {f"decoder.{key}": value for key, value in state.items()},
        "latent_avg": center.expand(8, DIM).clone(),
    }
    loaded, _ = load_generator(put(tmp_path, content))
    assert torch.equal(image_of(loaded), image_of(generator))
    assert torch.equal(loaded.latent_avg, center)


def test_half_precision_files_become_float32(tmp_path, state):
    halves = {key: value.half() for key, value in state.items()}
    loaded, _ = load_generator(put(tmp_path, {"g_ema": halves}))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_size_and_channels_are_read_off_the_shapes(tmp_path, size, multiplier):
    channels = tuple(8 * multiplier for _ in range(size.bit_length() - 2))
    state = Generator(size, channels, DIM, num_mapping=2).state_dict()
    loaded, _ = load_generator(put(tmp_path, state))
    assert (loaded.size, loaded.channels) == (size, channels)


def test_noise_of_the_checkpoint_is_kept(tmp_path, state):
    loaded, _ = load_generator(put(tmp_path, {"g_ema": state}))
    assert torch.equal(loaded.noises.get_buffer("noise_3"), state["noises.noise_3"])


def test_missing_noise_is_refused_by_name(tmp_path, state):
    del state["noises.noise_4"]
    message = r"1 of \d+ entries do not fit \(noises.noise_4: expected shape \[1, 1, 16, 16\]"
    with pytest.raises(WeightsError, match=message):
        load_generator(put(tmp_path, state))


def test_a_missing_layer_is_refused_by_name(tmp_path, state):
    del state["convs.2.conv.weight"]
    with pytest.raises(WeightsError, match=r"lacks convs\.2\.conv\.weight"):
        load_generator(put(tmp_path, state))


def test_unknown_entries_are_refused_by_name(tmp_path, state):
    state["convs.0.extra.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"convs\.0\.extra\.weight: expected nothing"):
        load_generator(put(tmp_path, state))


def test_another_filter_is_refused(tmp_path, state):
    state["convs.0.conv.blur.kernel"] = torch.ones(4, 4) / 4
    with pytest.raises(WeightsError, match=r"convs\.0\.conv\.blur\.kernel .*\[1, 3, 3, 1\]"):
        load_generator(put(tmp_path, state))


def test_a_16_px_generator_is_refused(tmp_path, state):
    small = {key: value for key, value in state.items() if not key.startswith("to_rgbs.2")}
    with pytest.raises(WeightsError, match="16 px"):
        load_generator(put(tmp_path, small))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("sm_coarse.mapping.1.weight", "Delta Mapper"),
        ("visual.conv1.weight", "CLIP"),
        ("synthesis.b4.const", "NVIDIA's PyTorch layout"),
        ("final_linear.0.weight", "discriminator"),
        ("layer.weight", "keys layer.weight"),
    ],
)
def test_another_architecture_is_refused_by_its_name(tmp_path, key, name):
    with pytest.raises(WeightsError, match=rf"expected a StyleGAN2 generator .* found .*{name}"):
        load_generator(put(tmp_path, {key: torch.zeros(2, 2)}))


def test_a_latent_avg_of_another_width_is_refused(tmp_path, state):
    with pytest.raises(WeightsError, match=r"latent_avg has shape \[5\], expected \[16\]"):
        load_generator(put(tmp_path, {"g_ema": state, "latent_avg": torch.zeros(5)}))
