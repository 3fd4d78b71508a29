"""How a gallery is searched, and which settings can work with it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import faiss

from datasets.mining import DESCRIPTOR_DTYPES

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
    r"(?:Flat|SQ(?:4|6|8|fp16)|PQ(?P<parts>\d{1,9})(?:x(?P<bits>\d{1,9}))?(?P<fast>fs)?)?"
)


@dataclass(frozen=True)
class RetrievalSettings:
    """How a gallery is searched.

    Attributes
    ----------
    index : a faiss factory string; `Flat` is the exact search.
    nprobe : lists that a query looks into, of an index with lists (IVF); None for `default_nprobe`.
    pca_dim : numbers per descriptor after PCA, None for all of them.
    dtype : in which descriptors are kept, on disk or in memory.
    seed : of the samples for PCA and training, and of the training itself.
    """

    index: str = FLAT
    nprobe: int | None = None
    pca_dim: int | None = None
    pca_whiten: bool = False
    dtype: str = DESCRIPTOR_DTYPES[0]
    seed: int = 0

    @property
    def plain(self) -> bool:
        """Whether it is the exact search in descriptors as the network gives them."""
        return self.index == FLAT and self.pca_dim is None and self.dtype == DESCRIPTOR_DTYPES[0]


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
    flag = f"--index {settings.index}"
    found = _FACTORY.fullmatch(settings.index)
    if not settings.index or not found:
        raise ValueError(f"{flag}: no index that is known here; give {SUPPORTED}")
    part = {name: int(value) for name, value in found.groupdict().items() if value and value != "fs"}
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
            f"{flag}: the gallery {gallery} has {images} images, so 1 to {images} lists are possible, "
            f"for example IVF{max(1, images // ADVISED_PER_CENTROID)}"
        )
    for name in ("links", "coarse_links"):
        if part.get(name, LINKS[0]) not in LINKS:
            raise ValueError(f"{flag}: HNSW takes {LINKS[0]} to {LINKS[-1]} links per image, for example HNSW32")
    dim = _check_opq(flag, part, dim, gallery, images)
    _check_pq(flag, part, bool(found["fast"]), dim, gallery, images)
    with faiss_errors(flag):
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


def _check_opq(flag: str, part: dict[str, int], dim: int, gallery: str, images: int) -> int:
    """The numbers per descriptor that OPQ leaves."""
    if "opq" not in part:
        return dim
    rotated = part.get("opq_dim", dim)
    if not 1 <= rotated <= dim:
        raise ValueError(f"{flag}: descriptors have {dim} numbers; OPQ leaves 1 to {dim} of them")
    if part["opq"] < 1 or rotated % part["opq"]:
        raise ValueError(
            f"{flag}: OPQ{part['opq']} does not divide {rotated} numbers; {_divisors(rotated, part['opq'])}"
        )
    if images < 2**OPQ_BITS:
        raise ValueError(
            f"{flag}: OPQ is trained on {2**OPQ_BITS} images or more, the gallery {gallery} has {images}; leave OPQ out"
        )
    return rotated


def _check_pq(flag: str, part: dict[str, int], fast: bool, dim: int, gallery: str, images: int) -> None:
    if "parts" not in part:
        return
    bits = part.get("bits", 8)
    if fast and bits != 4:
        raise ValueError(f"{flag}: fs goes with 4 bits, for example PQ{part['parts']}x4fs")
    if part["parts"] < 1 or dim % part["parts"]:
        raise ValueError(f"{flag}: PQ{part['parts']} does not divide {dim} numbers; {_divisors(dim, part['parts'])}")
    if bits not in PQ_BITS:
        raise ValueError(
            f"{flag}: PQ takes {PQ_BITS[0]} to {PQ_BITS[-1]} bits per part, for example PQ{part['parts']}x8"
        )
    if 2**bits > images:
        possible = images.bit_length() - 1
        remedy = "give --index Flat"
        if possible in PQ_BITS:
            remedy = f"{2**possible} are possible: PQ{part['parts']}x{possible}"
        raise ValueError(
            f"{flag}: {2**bits} centroids are too many for the gallery {gallery} of {images} images; {remedy}"
        )


def _divisors(dim: int, wanted: int) -> str:
    divisors = [n for n in range(1, dim + 1) if dim % n == 0]
    below, above = [n for n in divisors if n <= wanted], [n for n in divisors if n >= wanted]
    near = sorted({*below[-1:], *above[:1]})
    return f"give {' or '.join(map(str, near))}, or another number of dimensions by --pca_dim"


@contextmanager
def faiss_errors(flag: str) -> Iterator[None]:
    """What faiss refuses, as one line that names the flag."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split()).rsplit("failed: ", 1)[-1]
        raise ValueError(f"{flag}: faiss refuses it ({reason}); give {SUPPORTED}") from error
