import pytest
import torch

from pipeline.errors import WeightsError
from pipeline.models.delta_mapper import DeltaMapper, DeltaMapperConfig
from pipeline.models.weights import load_mapper, mapper_state

WIDTHS = (8,) * 7 + (8, 4)


@pytest.fixture
def mapper():
    torch.manual_seed(0)
    return DeltaMapper(DeltaMapperConfig(widths=WIDTHS, clip_dim=6))


def put(folder, content):
    path = folder / "net_face.pth"
    torch.save(content, path)
    return path


def test_a_mapper_comes_back_from_its_published_layout(tmp_path, mapper):
    loaded, info = load_mapper(put(tmp_path, mapper_state(mapper)))
    s, condition = torch.randn(3, 68), torch.randn(3, 12)
    assert torch.equal(loaded(s, condition), mapper(s, condition))
    assert loaded.config.widths == (8,) * 7 + (12,)
    assert not any(p.requires_grad for p in loaded.parameters())
    assert len(info.sha256) == 64


def test_given_widths_and_variants_are_used(tmp_path, mapper):
    path = put(tmp_path, mapper_state(mapper))
    loaded, _ = load_mapper(path, widths=WIDTHS, pixelnorm_axis="channels", linear_head=True)
    assert loaded.config == DeltaMapperConfig(
        widths=WIDTHS, clip_dim=6, pixelnorm_axis="channels", linear_head=True
    )


def test_other_widths_are_refused_with_expected_and_found(tmp_path, mapper):
    path = put(tmp_path, mapper_state(mapper))
    with pytest.raises(WeightsError, match=r"expected shape \[16, 16\], found shape \[12, 12\]"):
        load_mapper(path, widths=(8,) * 7 + (8, 8))


def test_a_missing_layer_is_refused_by_name(tmp_path, mapper):
    state = mapper_state(mapper)
    del state["fm_fine.mapping.3.bias"]
    with pytest.raises(WeightsError, match=r"fm_fine\.mapping\.3\.bias: expected .* found nothing"):
        load_mapper(put(tmp_path, state))


def test_another_architecture_is_refused_by_its_name(tmp_path):
    content = {"course_mapping.mapping.1.weight": torch.zeros(2, 2)}
    with pytest.raises(WeightsError, match="found a StyleCLIP mapper"):
        load_mapper(put(tmp_path, content))
