import shutil

import numpy as np

from flows.steps.looking import TILE, StorePictures
from pipeline.images import decode_image, to_square


def test_a_row_is_shown_by_its_source_image(encoded, faces):
    shown = StorePictures(encoded).of_keys(["avatar-000002.png"])[0]
    source = decode_image((faces / "avatar-000002.png").read_bytes())
    np.testing.assert_array_equal(shown, to_square(source, TILE))


def test_a_row_whose_image_is_gone_is_shown_by_its_reconstruction(call, faces, tmp_path):
    folder = tmp_path / "faces"
    folder.mkdir()
    for number in range(2):
        shutil.copy(faces / f"avatar-00000{number}.png", folder / f"{number}.png")
    call("precompute", "faces", "s", "--models", "avatar", folder=tmp_path)
    (folder / "1.png").unlink()
    pictures = StorePictures(tmp_path / "s")
    kept, lost = pictures.of_keys(["0.png", "1.png"])
    np.testing.assert_array_equal(lost, pictures.reconstruct(["1.png"])[0])
    assert not np.array_equal(kept, pictures.reconstruct(["0.png"])[0])
