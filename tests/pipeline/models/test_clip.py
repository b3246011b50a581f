"""CLIP through a tiny open_clip model whose config and weights the tests make."""

import copy
import json
import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline.errors import PromptError, ShapeError, WeightsError
from pipeline.models.clip import ClipModel, load_clip, resolve_precision
from pipeline.models.clip_weights import image_tower

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def write_config(folder: Path, name: str, **changes) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(CONFIG | changes))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("clip")


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    torch.manual_seed(3)
    return open_clip.CLIP(**CONFIG).eval()


@pytest.fixture(scope="module")
def weights(folder, reference) -> Path:
    path = folder / "tiny.safetensors"
    save_file(reference.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def clip(folder, weights) -> ClipModel:
    config = write_config(folder, "tiny-clip")
    return load_clip("tiny-clip", weights, model_config=config, precision="float32")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 50, 40, 3), dtype=np.uint8)


def test_model_states_what_it_is(clip, weights):
    import hashlib

    assert (clip.dim, clip.image_size, clip.context_length) == (24, 32, 16)
    assert (clip.name, clip.precision) == ("tiny-clip", "float32")
    assert clip.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_images_give_open_clips_own_embeddings(clip, reference, pixels):
    transform = open_clip.image_transform(32, is_train=False)
    inputs = torch.stack([transform(Image.fromarray(image)) for image in pixels])
    with torch.no_grad():
        expected = reference.encode_image(inputs)
    found = clip.encode_images(pixels, "official")
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found.norm(dim=1), torch.ones(5), atol=1e-3)


def test_texts_give_open_clips_own_embeddings(clip, reference):
    texts = ["face", "face with glasses"]
    tokens = open_clip.SimpleTokenizer(context_length=16)(texts)
    with torch.no_grad():
        expected = reference.encode_text(tokens)
    assert torch.allclose(clip.encode_texts(texts), expected, atol=1e-6)


def test_embedding_of_an_image_does_not_depend_on_its_batch(clip, pixels):
    together = clip.encode_images(pixels, "official")
    alone = torch.cat([clip.encode_images(pixels[i : i + 1], "official") for i in range(5)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_two_preprocessings_differ(clip, pixels):
    official = clip.encode_images(pixels, "official")
    assert (official - clip.encode_images(pixels, "box7")).abs().max() > 1e-2


def test_generated_images_are_embedded_as_their_8_bit_pixels_with_official(clip, pixels):
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    found = clip.encode_generated(images, "official")
    assert torch.allclose(found, clip.encode_images(pixels, "official"), atol=1e-5)
    assert torch.allclose(
        clip.encode_generated(1000 * images, "official"),
        clip.encode_generated((1000 * images).clamp(-1, 1), "official"),
    )


def test_generated_images_keep_values_beyond_the_range_and_gradients_with_box7(clip):
    images = torch.full((1, 3, 64, 64), 1.5, requires_grad=True)
    features = clip.encode_generated(images, "box7")
    features.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    clamped = clip.encode_generated(images.detach().clamp(-1, 1), "box7")
    assert not torch.allclose(features.detach(), clamped, atol=1e-3)


def test_text_over_the_context_length_is_refused_by_name(clip):
    long = "face with " + "very " * 14 + "big eyes"
    with pytest.raises(PromptError, match=r"very big eyes' has 20 tokens, tiny-clip takes 16"):
        clip.encode_texts(["face", long])


def test_unknown_preprocessing_is_refused(clip, pixels):
    with pytest.raises(ValueError, match=r"official, box7.*'bicubic'"):
        clip.encode_images(pixels, "bicubic")


def test_channels_first_pixels_are_refused(clip, pixels):
    with pytest.raises(ShapeError, match=r"\[5, 3, 50, 40\]"):
        clip.encode_images(pixels.transpose(0, 3, 1, 2), "official")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_stays_close_and_leaves_texts_alone(weights, clip, pixels, precision):
    half = load_clip("tiny-clip", weights, precision=precision)
    cosine = torch.cosine_similarity(
        half.encode_images(pixels, "official"), clip.encode_images(pixels, "official")
    )
    assert half.precision == precision
    assert cosine.min() > 0.999
    assert torch.equal(half.encode_texts(["face"]), clip.encode_texts(["face"]))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("half_file", [False, True])
def test_without_the_text_tower_images_have_the_same_embeddings(
    folder, reference, weights, pixels, precision, half_file
):
    if half_file:
        weights = folder / "half.safetensors"
        save_file({k: v.half() for k, v in reference.state_dict().items()}, weights)
    both, alone = (
        load_clip("tiny-clip", weights, precision=precision, texts=texts) for texts in (True, False)
    )
    ours, theirs = (c.encode_images(pixels, "official") for c in (alone, both))
    assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match="loaded for images alone"):
        alone.encode_texts(["a face"])


def test_a_tower_that_holds_more_than_weights_is_not_taken_without_them(reference, weights):
    empty = copy.deepcopy(reference)
    empty.visual.register_buffer("table", torch.arange(3.0), persistent=False)
    state = reference.state_dict()
    assert image_tower(empty.to("meta"), state, "tiny-clip", weights) is None


def test_automatic_precision_is_one_that_the_device_has():
    assert resolve_precision("auto", torch.device("cpu")) in {"float32", "bfloat16"}
    assert resolve_precision("float16", torch.device("cpu")) == "float16"
    with pytest.raises(ValueError, match="int8"):
        resolve_precision("int8", torch.device("cpu"))


def test_nothing_in_the_towers_can_be_trained(clip):
    assert not any(p.requires_grad for p in clip._towers.parameters())
    assert not clip._towers.training


def test_weights_of_another_size_are_refused_with_both_shapes(folder, weights):
    config = write_config(folder, "wider-clip", embed_dim=48)
    with pytest.raises(WeightsError, match=r"wider-clip.*expected \(32, 48\), found \(32, 24\)"):
        load_clip("wider-clip", weights, model_config=config)


def test_missing_entries_are_named(folder, reference):
    state = reference.state_dict()
    state.pop("visual.proj")
    save_file(state, folder / "partial.safetensors")
    config = write_config(folder, "tiny-clip")
    with pytest.raises(WeightsError, match=r"visual\.proj: expected \(64, 24\), found nothing"):
        load_clip("tiny-clip", folder / "partial.safetensors", model_config=config)


def test_unknown_model_name_is_refused(weights):
    with pytest.raises(WeightsError, match="no model 'ViT-Q-99'"):
        load_clip("ViT-Q/99", weights)


def test_model_that_needs_a_hub_is_refused_before_anything_is_fetched(weights):
    with pytest.raises(WeightsError, match=r"hf_tokenizer_name.*hub"):
        load_clip("ViT-B-16-SigLIP", weights)


def test_preprocessing_of_the_config_is_followed(folder, weights):
    half = [0.5, 0.5, 0.5]
    config = write_config(folder, "half-clip", preprocess_cfg={"mean": half, "std": half})
    clip = load_clip("half-clip", weights, model_config=config)
    assert clip.recipe.mean == clip.recipe.std == (0.5, 0.5, 0.5)


def test_openais_archives_load_with_quickgelu(folder, reference, pixels):
    """OpenAI publishes TorchScript archives; their weights were trained with QuickGELU."""
    inputs = torch.zeros(1, 3, 32, 32), torch.zeros(1, 16, dtype=torch.long)
    path = folder / "openai.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(reference, inputs, check_trace=False).save(str(path))
    config = write_config(folder, "tiny-clip")
    clip = load_clip("tiny-clip", path, model_config=config, precision="float32")
    quick = open_clip.CLIP(**CONFIG, quick_gelu=True).eval()
    quick.load_state_dict(reference.state_dict())
    with torch.no_grad():
        expected = quick.encode_image(clip.prepare(pixels, "official"))
    assert torch.allclose(clip.encode_images(pixels, "official"), expected, atol=1e-5)
