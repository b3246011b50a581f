"""`deltaedit store export`: a store's vectors in another layout."""

from pathlib import Path

import click

from flows.commands.options import JSON, STORE, print_result
from stores.places import StorePath


@click.command()
@STORE
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--layout",
    type=click.Choice(["official", "clip-retrieval"]),
    default="official",
    show_default=True,
    help="official: {c,w,s}space_SET_feat.npy, as the published training code reads them. "
    "clip-retrieval: clip alone, as img_emb/img_emb_0.npy with metadata/metadata_0.parquet.",
)
@click.option(
    "--set",
    "name",
    default="ffhq",
    show_default=True,
    help="SET of rows that were not imported under another: noise for sampled, ffhq for real.",
)
@click.option(
    "--as-stored",
    is_flag=True,
    help="With clip-retrieval: keep length and precision of the embeddings; otherwise they are "
    "normalised and rounded to float16, as clip-retrieval writes them.",
)
@JSON
def command(
    store: StorePath, folder: Path, layout: str, name: str, *, as_stored: bool, as_json: bool
) -> None:
    """Write clip, w_plus and s of STORE into FOLDER, rows sorted by key, without loss.

    Example: deltaedit store export ffhq.store latent_code/ffhq --layout official
    """
    from flows.steps.exchange import export_vectors

    files = export_vectors(store, folder, layout=layout, name=name, as_stored=as_stored)
    print_result({"files": [str(path) for path in files]}, as_json=as_json)
