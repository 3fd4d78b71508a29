"""How a gallery is searched, and which settings can work with it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from datasets.command_line import flag

DESCRIPTOR_DTYPES = ("float32", "float16")
DECODERS = ("cpu", "gpu")
FLAT = "Flat"
ADVISED_PER_CENTROID = 39
"""Images per list below which faiss warns."""
OPQ_BITS = 8
PQ_BITS = range(4, 13)
"""Bits per part of a product quantizer; faiss computes with eight centroids at a time."""
LINKS = range(4, 257)
SUPPORTED = "Flat, HNSW32, IVF4096,Flat, IVF4096,SQ8, OPQ64_256,IVF4096,PQ64 and the like"
_FACTORY = re.compile(
    r"(?:OPQ(?P<opq>\d{1,9})(?:_(?P<opq_dim>\d{1,9}))?,)?"
    r"(?:IVF(?P<lists>\d{1,9})(?:_HNSW(?P<coarse_links>\d{1,9}))?,(?=[FSP])|HNSW(?P<links>\d{1,9})(?:,(?=[FSP])|$))?"
    r"(?:Flat|SQ(?:4|6|8|fp16)|PQ(?P<parts>\d{1,9})(?:x(?P<bits>\d{1,9}))?(?:fs)?)?"
)


@dataclass(frozen=True)
class RetrievalSettings:
    """How a gallery is searched; `seed` is that of the samples for PCA and training, and of the training itself."""

    index: str = flag(FLAT, f"faiss index of the gallery: {SUPPORTED}; Flat searches exactly", metavar="FACTORY")
    nprobe: int | None = flag(
        None, "lists of an IVF index that a query looks into (default: one in 64, at least 8)", least=1
    )
    pca_dim: int | None = flag(None, "shorten descriptors to N numbers by PCA, fitted to the gallery", least=1)
    pca_whiten: bool = flag(False, "scale the PCA's components to variance 1")
    dtype: str = flag(
        DESCRIPTOR_DTYPES[0], "numbers that descriptors are kept in", name="descriptor_dtype", choices=DESCRIPTOR_DTYPES
    )
    seed: int = 0

    @property
    def plain(self) -> bool:
        """Whether it is the exact search in descriptors as the network gives them."""
        return self.index == FLAT and self.pca_dim is None and self.dtype == DESCRIPTOR_DTYPES[0]


EXACT = RetrievalSettings()


def default_nprobe(lists: int) -> int:
    """One in 64 lists, at least 8 (all, where there are fewer)."""
    return min(lists, max(8, lists // 64))


def check_settings(settings: RetrievalSettings, dim: int, gallery: str, images: int) -> None:
    """What would fail after hours of embedding fails now.

    Parameters
    ----------
    dim : D of the network's descriptors.
    gallery, images : its name, for the message, and its size.

    Raises
    ------
    ValueError : the flags do not go together, or not with this gallery; the flag and what is possible are named.
    """
    shown = f"--index {settings.index}"
    found = _FACTORY.fullmatch(settings.index)
    if not settings.index or not found:
        raise ValueError(f"{shown}: no index that is known here; give {SUPPORTED}")
    part = {name: int(value) for name, value in found.groupdict().items() if value}
    if settings.pca_whiten and settings.pca_dim is None:
        raise ValueError("--pca_whiten: give --pca_dim N too")
    if settings.pca_dim is not None:
        if settings.pca_dim > dim:
            raise ValueError(f"--pca_dim {settings.pca_dim}: descriptors have {dim} numbers; give at most {dim}")
        if settings.pca_dim > images:
            raise ValueError(
                f"--pca_dim {settings.pca_dim}: the gallery {gallery} has {images} images; give at most {images}"
            )
        dim = settings.pca_dim
    _check_nprobe(settings, part)
    if part.get("lists", 1) < 1 or part.get("lists", 1) > images:
        raise ValueError(
            f"{shown}: the gallery {gallery} has {images} images, so 1 to {images} lists are possible, "
            f"for example IVF{max(1, images // ADVISED_PER_CENTROID)}"
        )
    for name in ("links", "coarse_links"):
        if part.get(name, LINKS[0]) not in LINKS:
            raise ValueError(f"{shown}: HNSW takes {LINKS[0]} to {LINKS[-1]} links per image, for example HNSW32")
    dim = _check_opq(shown, part, dim, gallery, images)
    _check_pq(shown, part, gallery, images)
    import faiss  # not at the top: `--help` reads the flags above

    with faiss_errors(shown):
        faiss.index_factory(dim, settings.index.split(",", 1)[1] if "opq" in part else settings.index)


def _check_nprobe(settings: RetrievalSettings, part: dict[str, int]) -> None:
    if settings.nprobe is None:
        return
    if "lists" not in part:
        raise ValueError(
            f"--nprobe {settings.nprobe}: --index {settings.index} has no lists; leave it out, or give an IVF index"
        )
    if not 1 <= settings.nprobe <= part["lists"]:
        raise ValueError(
            f"--nprobe {settings.nprobe}: --index {settings.index} has {part['lists']} lists; give 1 to {part['lists']}"
        )


def _check_opq(shown: str, part: dict[str, int], dim: int, gallery: str, images: int) -> int:
    """The numbers per descriptor that OPQ leaves."""
    if "opq" not in part:
        return dim
    rotated = part.get("opq_dim", dim)
    if not 1 <= rotated <= dim:
        raise ValueError(f"{shown}: descriptors have {dim} numbers; OPQ leaves 1 to {dim} of them")
    if part["opq"] < 1 or rotated % part["opq"]:
        raise ValueError(
            f"{shown}: OPQ{part['opq']} does not divide {rotated} numbers; give a divisor of it, or another --pca_dim"
        )
    if images < 2**OPQ_BITS:
        raise ValueError(
            f"{shown}: OPQ is trained on {2**OPQ_BITS} images or more, the gallery {gallery} has {images}; leave OPQ out"
        )
    return rotated


def _check_pq(shown: str, part: dict[str, int], gallery: str, images: int) -> None:
    if "parts" not in part:
        return
    bits = part.get("bits", 8)
    if bits not in PQ_BITS:
        raise ValueError(
            f"{shown}: PQ takes {PQ_BITS[0]} to {PQ_BITS[-1]} bits per part, for example PQ{part['parts']}x8"
        )
    if 2**bits > images:
        possible = images.bit_length() - 1
        remedy = "give --index Flat"
        if possible in PQ_BITS:
            remedy = f"{2**possible} are possible: PQ{part['parts']}x{possible}"
        raise ValueError(
            f"{shown}: {2**bits} centroids are too many for the gallery {gallery} of {images} images; {remedy}"
        )


@contextmanager
def faiss_errors(shown: str) -> Iterator[None]:
    """What faiss refuses, as one line that names the flag."""
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r".*(failed|\.cpp:\d+): ", "", " ".join(str(error).split()))  # without the place in faiss
        raise ValueError(f"{shown}: faiss refuses it ({reason}); give {SUPPORTED}") from error
