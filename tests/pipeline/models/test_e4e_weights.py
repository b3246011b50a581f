import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import WeightsError
from pipeline.models.e4e import E4EConfig, Encoder
from pipeline.models.stylegan2 import Generator
from pipeline.models.weights import load_e4e

DIM = 16
SMALL = {"stage_units": (1, 2, 1, 1), "stage_widths": (16, 24, 32, 48), "style_dim": DIM}
SQUARE = {"input_height": 32, "input_width": 32}


def make_generator(size=32):
    torch.manual_seed(0)
    channels = (4,) * (size.bit_length() - 2)
    generator = Generator(size, channels, DIM, num_mapping=2).eval()
    generator.latent_avg = torch.randn(DIM)
    return generator


def make_encoder(**options):
    torch.manual_seed(1)
    return Encoder(E4EConfig(**{"num_w": 8, **SMALL, **SQUARE, **options})).eval()


def checkpoint(encoder, **others):
    state = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    return {"state_dict": {**state, "decoder.input.input": torch.zeros(1)}, **others}


def put(folder, content):
    path = folder / "e4e.pt"
    torch.save(content, path)
    return path


def test_a_published_checkpoint_gives_codes_plus_its_average(tmp_path):
    encoder, average = make_encoder(), torch.randn(8, DIM)
    content = checkpoint(encoder, latent_avg=average, opts={"start_from_latent_avg": True})
    model, info = load_e4e(put(tmp_path, content), make_generator())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images), encoder(images) + average)
    assert model.encoder.config == encoder.config
    assert not any(p.requires_grad for p in model.parameters())
    assert len(info.sha256) == 64


def test_without_an_average_the_generators_is_used(tmp_path):
    generator = make_generator()
    model, _ = load_e4e(put(tmp_path, checkpoint(make_encoder())), generator)
    assert torch.equal(model.latent_avg, generator.latent_avg.expand(8, -1))


def test_an_encoder_that_did_not_start_from_the_average_gets_none(tmp_path):
    opts = {"start_from_latent_avg": False}
    model, _ = load_e4e(put(tmp_path, checkpoint(make_encoder(), opts=opts)), make_generator())
    assert not model.latent_avg.any()


def test_one_average_for_all_codes_is_accepted(tmp_path):
    content = checkpoint(make_encoder(), latent_avg=torch.ones(DIM))
    model, _ = load_e4e(put(tmp_path, content), make_generator())
    assert torch.equal(model.latent_avg, torch.ones(8, DIM))


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_safetensors_give_the_input_size_in_their_metadata(tmp_path, prefix):
    encoder = make_encoder(input_height=24)
    state = {f"{prefix}{key}": value for key, value in encoder.state_dict().items()}
    path = tmp_path / "e4e.safetensors"
    metadata = {"input_height": "24", "input_width": "32"}
    save_file({**state, "latent_avg": torch.ones(8, DIM)}, path, metadata=metadata)
    model, _ = load_e4e(path, make_generator())
    assert model.encoder.config == encoder.config
    assert torch.equal(model.latent_avg, torch.ones(8, DIM))


def test_a_car_encoder_keeps_the_heads_that_its_generator_takes(tmp_path):
    encoder, average = make_encoder(num_w=10, input_height=24), torch.randn(10, DIM)
    content = checkpoint(encoder, latent_avg=average, opts={"dataset_type": "cars_encode"})
    model, _ = load_e4e(put(tmp_path, content), make_generator())
    images = torch.randn(1, 3, 24, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images), (encoder(images) + average)[:, :8])


def test_codes_for_another_generator_are_refused_naming_both(tmp_path):
    path = put(tmp_path, checkpoint(make_encoder(num_w=10)))
    message = "gives 10 codes of 16, the generator of 32 px takes 8 of 16"
    with pytest.raises(WeightsError, match=message):
        load_e4e(path, make_generator())


def test_a_psp_encoder_with_the_same_keys_is_refused(tmp_path):
    opts = {"encoder_type": "GradualStyleEncoder"}
    with pytest.raises(WeightsError, match="GradualStyleEncoder, expected Encoder4Editing"):
        load_e4e(put(tmp_path, checkpoint(make_encoder(), opts=opts)), make_generator())


def test_a_missing_layer_is_refused_by_name(tmp_path):
    content = checkpoint(make_encoder())
    del content["state_dict"]["encoder.latlayer1.weight"]
    with pytest.raises(WeightsError, match=r"latlayer1\.weight: expected shape .* found nothing"):
        load_e4e(put(tmp_path, content), make_generator())


def test_counters_of_batch_normalisation_may_be_missing(tmp_path):
    content = checkpoint(make_encoder())
    state = content["state_dict"]
    content["state_dict"] = {k: v for k, v in state.items() if not k.endswith("batches_tracked")}
    assert load_e4e(put(tmp_path, content), make_generator())


def test_a_backbone_of_other_stages_is_refused(tmp_path):
    content = checkpoint(make_encoder(stage_widths=(16, 32, 32, 48)))
    with pytest.raises(WeightsError, match="backbone of 4 stages"):
        load_e4e(put(tmp_path, content), make_generator())


def test_another_architecture_is_refused_by_its_name(tmp_path):
    generator = make_generator()
    path = put(tmp_path, {"g_ema": generator.state_dict()})
    with pytest.raises(WeightsError, match="found g_ema: a StyleGAN2 generator"):
        load_e4e(path, generator)


def test_an_average_of_another_shape_is_refused(tmp_path):
    content = checkpoint(make_encoder(), latent_avg=torch.zeros(18, DIM))
    with pytest.raises(WeightsError, match=r"latent_avg has shape \[18, 16\], expected \[8, 16\]"):
        load_e4e(put(tmp_path, content), make_generator())
