"""Every kind of bad input through `deltaedit precompute`: each has its outcome and its message."""

import json
import os
import shutil
import stat
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.models.registry import BUNDLED_FOLDER
from stores.reader import StoreReader

NOBODY = 65534
ODD_NAME = b"caf\xe9.png"


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(seed, mode="RGB", size=48):
    return Image.fromarray(noise(seed, size, size, 3)).convert(mode)


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side):
    """A sound PNG of side x side black pixels in a few kilobytes."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((side // 8 + 1) * side))
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory):
    """One of each, and five sound images."""
    folder = tmp_path_factory.mktemp("odd") / "odd"
    folder.mkdir()
    for number in range(5):
        picture(number).save(folder / f"sound-{number}.png")
    picture(10).save(folder / "whole.jpg")
    data = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (folder / "zero.jpg").touch()
    (folder / "text.jpg").write_text("this is a shopping list")
    picture(11, "CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(noise(12, 48, 48).astype(np.uint16) * 257).save(folder / "deep.png")
    picture(13, "P").save(folder / "palette.png", transparency=3)
    picture(14, "P").save(
        folder / "animated.gif", save_all=True, append_images=[picture(15, "P")], duration=50
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(16).resize((64, 48)).save(folder / "rotated.jpg", exif=exif)
    with Image.open(folder / "rotated.jpg") as stored:
        stored.transpose(Image.Transpose.ROTATE_270).save(folder / "upright.png")
    picture(17, size=1).save(folder / "one-pixel.png")
    (folder / "bomb.png").write_bytes(bomb(20_000))
    picture(18).save(folder / "odd.png")
    (folder / "odd.png").rename(folder / os.fsdecode(ODD_NAME))
    (folder / "broken.png").symlink_to(folder / "nowhere.png")
    shutil.copy(folder / "sound-0.png", folder / "twin.png")
    return folder


@pytest.fixture(scope="module")
def odd_run(call, odd_folder, tmp_path_factory):
    store = tmp_path_factory.mktemp("odd-store") / "odd.store"
    run = call(
        *("precompute", odd_folder, store, "--models", "avatar", "--json"),
        *("--max-reject-rate", 0.5),
    )
    return json.loads(run.out), StoreReader(store)


def test_every_input_is_a_row_a_reject_or_a_duplicate(odd_folder, odd_run):
    summary, reader = odd_run
    assert summary["inputs"] == len(list(odd_folder.iterdir()))
    assert summary["inputs"] == summary["rows"] + summary["rejects"] + summary["duplicates"]
    assert summary["rows"] == len(reader) == len(set(reader.keys))


def test_what_cannot_be_decoded_is_rejected_with_its_reason(odd_run):
    reasons = {reject.key: reject.reason for reject in odd_run[1].rejects()}
    assert reasons == {
        "truncated.jpg": "truncated",
        "zero.jpg": "empty",
        "text.jpg": "not_an_image",
        "bomb.png": "too_large",
        "broken.png": "broken_symlink",
        "twin.png": "duplicate",
    }


def test_a_reject_says_what_was_found_and_what_to_do(odd_run):
    details = {reject.key: reject.detail for reject in odd_run[1].rejects()}
    assert "400000000 pixels" in details["bomb.png"]
    assert "fetch or export it again" in details["truncated.jpg"]
    assert "0 bytes" in details["zero.jpg"]
    assert details["twin.png"] == "sound-0.png"


@pytest.mark.parametrize(
    "key",
    ["cmyk.jpg", "deep.png", "palette.png", "animated.gif", "one-pixel.png", "caf%E9.png"],
)
def test_unusual_but_sound_images_become_rows(odd_run, key):
    reader = odd_run[1]
    row = reader.rows([reader.index_of(key)], ["clip", "w_plus", "s"])
    assert all(np.isfinite(values).all() for values in row.values())


def test_a_rotated_photo_is_encoded_upright(odd_run):
    reader = odd_run[1]
    rows = reader.rows([reader.index_of(k) for k in ("rotated.jpg", "upright.png")], ["s"])["s"]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-4 * np.abs(rows).max())


def test_rejects_above_the_limit_end_in_code_1_with_the_rows_kept(
    call, odd_folder, tmp_path, small_shards
):
    run = call("precompute", odd_folder, tmp_path / "s", *small_shards, code=1)
    assert "of 20 inputs were rejected, more than --max-reject-rate 0.05" in run.err
    assert len(StoreReader(tmp_path / "s")) == 14


def test_unreadable_files_are_rejected_by_name(call, small_shards):
    places = [BUNDLED_FOLDER / "e4e.safetensors", *BUNDLED_FOLDER.parents]
    if os.getuid() == 0 and not all(p.stat().st_mode & stat.S_IROTH for p in places):
        pytest.skip("root reads everything, and other users cannot reach this checkout")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "pictures"
        folder.mkdir()
        for number in range(3):
            picture(number).save(folder / f"{number}.png")
        (folder / "1.png").chmod(0)
        Path(name).chmod(0o777)
        become_nobody = f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"
        call(
            *("precompute", folder, f"{name}/s", *small_shards, "--max-reject-rate", 0.5),
            before=become_nobody if os.getuid() == 0 else "",
        )
        (reject,) = StoreReader(Path(name) / "s").rejects()
    assert (reject.key, reject.reason) == ("1.png", "unreadable")
    assert "permissions" in reject.detail


def test_an_empty_folder_is_a_wrong_call_and_writes_nothing(call, tmp_path, small_shards):
    (tmp_path / "empty").mkdir()
    run = call("precompute", tmp_path / "empty", tmp_path / "s", *small_shards, code=2)
    assert "has no image in it" in run.err
    assert not (tmp_path / "s").exists()


def test_a_missing_folder_is_a_wrong_call_and_writes_nothing(call, tmp_path, small_shards):
    run = call("precompute", tmp_path / "nowhere", tmp_path / "s", *small_shards, code=2)
    assert "nowhere' does not exist; check the path" in run.err
    assert not (tmp_path / "s").exists()


def test_a_store_of_other_weights_is_refused_with_both_digests(
    call, encoded, faces, tmp_path, small_shards
):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    weights = BUNDLED_FOLDER / "e4e.safetensors"
    with safe_open(weights, framework="pt") as file:
        metadata = file.metadata() | {"note": "of another run"}
    save_file(load_file(weights), tmp_path / "other.safetensors", metadata)
    run = call(
        *("precompute", faces, encoded, *small_shards, "--split-eval", 0.25),
        *("--encoder", tmp_path / "other.safetensors"),
        code=2,
    )
    assert "was made by other models or settings" in run.err
    assert run.err.count("e4e sha256=") >= 4  # of w_plus and s, the store's and the run's
    assert "another store" in run.err


def test_a_store_of_other_settings_is_refused(call, encoded, faces, small_shards):
    run = call(
        *("precompute", faces, encoded, *small_shards, "--split-eval", 0.25),
        *("--clip-pre", "box7"),
        code=2,
    )
    assert "pre=official" in run.err
    assert "pre=box7" in run.err


def test_no_space_left_keeps_what_is_committed_and_the_next_run_goes_on(
    call, encoded, faces, tmp_path, small_shards
):
    store = tmp_path / "s"
    options = (*small_shards, "--split-eval", 0.25)
    shard_bytes = max(path.stat().st_size for path in (encoded / "shards").iterdir())
    # A shard of 16 rows fits under the limit, one of 80 does not.
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({shard_bytes * 2},) * 2)"
    names = sorted(path for path in faces.iterdir() if path.suffix == ".png")
    (tmp_path / "some.txt").write_text("\n".join(map(str, names[:16])))
    call("precompute", f"@{tmp_path}/some.txt", store, *options, before=limit)
    (tmp_path / "all.txt").write_text("\n".join(map(str, names)))
    bigger = ("precompute", f"@{tmp_path}/all.txt", store, *options, "--shard-rows", 80)
    run = call(*bigger, code=1, before=limit)
    assert "no room to write" in run.err
    assert "Everything committed before is safe" in run.err
    assert len(StoreReader(store)) == 16
    assert not list(store.rglob("*.tmp"))
    call(*bigger)
    assert len(StoreReader(store)) == 96
