"""Frozen CLIP towers through open_clip: pixels or texts -> embeddings [N, C], not normalised.

Only local files are read: no model, weight or tokenizer is ever fetched from a hub. Letters of
shapes: pipeline/shapes.py; CLIP: Radford et al. 2021.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pipeline.errors import PromptError, WeightsError
from pipeline.images import pixel_tensor, to_float, to_uint8
from pipeline.models.clip_pre import CLIP_PRES, ClipInput, ClipPre, box7_input, official_input
from pipeline.models.clip_weights import fill_towers, image_tower, read_clip_state
from pipeline.models.weights_file import is_torchscript
from pipeline.shapes import Pixels, assert_shape

Precision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS = get_args(Precision)

TEXTS_PER_BATCH = 256


class ClipModel:
    """Both towers of one CLIP model, frozen; made by `load_clip`.

    Attributes:
        name: the model's name in open_clip.
        sha256: digest of the weights file.
        precision: of the image tower's weights; the text tower is always float32.
        dim: C, width of an embedding.
        recipe: size, mean, std and filter of the `official` pre-processing.
        context_length: tokens in a text at most, start and end included.
    """

    def __init__(
        self,
        towers: nn.Module,
        tokenizer: Any,
        recipe: ClipInput,
        *,
        name: str,
        sha256: str,
        precision: str,
        dim: int,
    ) -> None:
        self.name = name
        self.sha256 = sha256
        self.precision = precision
        self.dim = dim
        self.recipe = recipe
        self.context_length: int = tokenizer.context_length
        self._towers: Any = towers
        self._tokenizer = tokenizer

    @property
    def image_size(self) -> int:
        """Side of the tower's input in pixels."""
        return self.recipe.size

    @property
    def device(self) -> torch.device:
        """Where the towers are."""
        return next(self._towers.parameters()).device

    def prepare(self, pixels: Pixels | Tensor, pre: ClipPre) -> Tensor:
        """uint8 [N, H, W, 3] of one size -> the tower's input [N, 3, size, size] float32.

        Args:
            pixels: array or tensor, on any device.
            pre: `official` is open_clip's own transform; `box7` the area filter of the published
                DeltaEdit weights.

        Raises:
            ShapeError: for another number of axes or channels.
            ValueError: for another `pre`.
        """
        batch = pixel_tensor(pixels).to(self.device)
        assert_shape(batch, (None, None, None, 3), "pixels")
        if _checked(pre) == "official":
            return official_input(batch, self.recipe)
        return box7_input(to_float(batch), self.image_size)

    def embed(self, inputs: Tensor) -> Tensor:
        """Output of `prepare` [N, 3, size, size] -> float32 [N, C]."""
        return self._towers.encode_image(inputs.to(getattr(torch, self.precision))).float()

    def encode_images(self, pixels: Pixels | Tensor, pre: ClipPre) -> Tensor:
        """uint8 [N, H, W, 3] of one size -> float32 [N, C]; arguments and errors of `prepare`."""
        return self.embed(self.prepare(pixels, pre))

    def encode_generated(self, images: Tensor, pre: ClipPre) -> Tensor:
        """Float [N, 3, H, W] about -1..1, as generators give them -> float32 [N, C].

        `official` clamps and rounds to 8-bit levels first; `box7` takes the values as they are and
        passes gradients on to `images`.
        """
        assert_shape(images, (None, 3, None, None), "images")
        if _checked(pre) == "official":
            return self.encode_images(to_uint8(images), pre)
        return self.embed(box7_input(images.to(self.device), self.image_size))

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """N texts -> float32 [N, C].

        Raises:
            PromptError: for a text of more tokens than the context holds; a cut text would mean
                something else.
            ValueError: the model was loaded without its text tower.
        """
        if not hasattr(self._towers, "encode_text"):
            raise ValueError(f"{self.name} was loaded for images alone; load it with texts=True")
        for text in texts:
            num_tokens = len(self._tokenizer.encode(text)) + 2
            if num_tokens > self.context_length:
                raise PromptError(
                    f"{text!r} has {num_tokens} tokens, {self.name} takes {self.context_length} "
                    "with start and end; shorten it"
                )
        tokens = self._tokenizer(list(texts)).to(self.device)
        parts = [self._towers.encode_text(part) for part in tokens.split(TEXTS_PER_BATCH)]
        return torch.cat(parts).float()


def _checked(pre: str) -> str:
    if pre not in CLIP_PRES:
        raise ValueError(f"clip_pre must be one of {', '.join(CLIP_PRES)}, got {pre!r}")
    return pre


def resolve_precision(precision: Precision, device: torch.device) -> str:
    """`auto` -> bfloat16 where the hardware multiplies it (CUDA; AVX-512 BF16, AMX), else float32.

    Raises:
        ValueError: for a word that is not in `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    # Older torch has no such function; the safe answer is then float32.
    units = getattr(torch.cpu, "get_capabilities", dict)()
    has_units = units.get("avx512_bf16") or units.get("amx_bf16")
    return "bfloat16" if has_units and device.type == "cpu" else "float32"


def load_clip(
    name: str,
    weights: Path,
    *,
    model_config: Path | None = None,
    device: str | torch.device = "cpu",
    precision: Precision = "auto",
    texts: bool = True,
) -> ClipModel:
    """Build an open_clip model and fill it from a local file.

    Args:
        name: as in open_clip (``ViT-B-32``, OpenAI's spelling ``ViT-B/32`` too) or the stem of
            `model_config`.
        weights: safetensors, a PyTorch state dict, or OpenAI's own TorchScript archive. The last
            gets the QuickGELU that those weights were trained with; for OpenAI weights in another
            container the name must end in ``-quickgelu``.
        model_config: an open_clip model config (JSON) for models that open_clip does not know; may
            hold ``preprocess_cfg``.
        device: where both towers go.
        precision: of the image tower; `auto` as in `resolve_precision`.
        texts: whether to load the text tower too.

    Raises:
        WeightsError: unknown model, or weights that do not fit it.
    """
    place = torch.device(device)
    resolved = resolve_precision(precision, place)
    name = name.replace("/", "-")
    config = _local_config(name, model_config)
    state, sha256 = read_clip_state(weights)
    if is_torchscript(weights):
        config["quick_gelu"] = True
    recipe = _recipe(config.pop("preprocess_cfg", {}))
    towers: Any = None
    if not texts:
        with torch.device("meta"):
            empty = _build_towers(config, getattr(torch, resolved))
        towers = image_tower(empty, state, name, weights)
    if towers is None:
        towers = _build_towers(config, getattr(torch, resolved))
        fill_towers(towers, state, name, weights)
    _lower_image_tower(towers.visual, getattr(torch, resolved))
    if place.type == "cpu":
        from pipeline.models.fast_towers import use_fast_products

        use_fast_products(towers.visual)
    return ClipModel(
        towers.requires_grad_(requires_grad=False).eval().to(place),
        _tokenizer(config["text_cfg"]),
        ClipInput(size=_square_size(towers.visual.image_size, name), **recipe),
        name=name,
        sha256=sha256,
        precision=resolved,
        dim=config["embed_dim"],
    )


def _local_config(name: str, model_config: Path | None) -> dict[str, Any]:
    """The model's config, if it can be built from files on this machine."""
    import open_clip

    if model_config is not None:
        open_clip.add_model_config(model_config)
    config = open_clip.get_model_config(name)
    if config is None:
        raise WeightsError(
            f"open_clip knows no model {name!r}; give a name out of open_clip.list_models() such "
            "as ViT-B-32, or the model's config file and its stem as the name"
        )
    remote = {"hf_model_name", "hf_tokenizer_name"} & config["text_cfg"].keys()
    if remote or "multimodal_cfg" in config:
        raise WeightsError(
            f"{name} needs {', '.join(sorted(remote)) or 'a captioning tower'}, which open_clip "
            "fetches from a hub; choose a model with CLIP's own tokenizer"
        )
    return config


def _build_towers(config: dict[str, Any], dtype: torch.dtype) -> Any:
    """An open_clip model with random weights in float32."""
    import open_clip

    config = dict(config)
    build = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    # cast_dtype selects layer norms that compute in float32 inside a half-precision tower.
    return build(**config, cast_dtype=dtype)


def _tokenizer(text_config: dict[str, Any]) -> Any:
    """CLIP's byte-pair tokenizer, whose vocabulary comes with open_clip."""
    import open_clip

    options = text_config.get("tokenizer_kwargs", {})
    return open_clip.SimpleTokenizer(
        context_length=text_config.get("context_length", 77), **options
    )


def _recipe(preprocess: dict[str, Any]) -> dict[str, Any]:
    """The parts of open_clip's ``preprocess_cfg`` that `ClipInput` states."""
    known = ("mean", "std", "interpolation", "resize_mode")
    return {
        key: tuple(preprocess[key]) if key in ("mean", "std") else preprocess[key]
        for key in known
        if key in preprocess
    }


def _square_size(size: int | tuple[int, int], name: str) -> int:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise WeightsError(f"{name} takes {height} x {width} px; only square inputs are supported")
    return height


def _lower_image_tower(visual: nn.Module, dtype: torch.dtype) -> None:
    """Weights of the image tower to `dtype`; norms and embeddings of native towers stay float32."""
    from open_clip.model import convert_weights_to_lp
    from open_clip.timm_model import TimmModel

    if dtype == torch.float32:
        return
    if isinstance(visual, TimmModel):
        visual.to(dtype)
    else:
        convert_weights_to_lp(visual, dtype)
