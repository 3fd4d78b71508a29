"""How a gallery is searched, and which settings can work with it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from datasets.command_line import flag
from utils.retrieval.engines.client import check_engine

DESCRIPTOR_DTYPES = ("float32", "float16")
DECODERS = ("cpu", "gpu")
FLAT = "Flat"
ADVISED_PER_CENTROID = 39
"""Images per list below which faiss warns."""
OPQ_BITS = 8
SUPPORTED = "Flat, HNSW32, IVF4096,Flat, IVF4096,SQ8, OPQ64_256,IVF4096,PQ64 and similar"
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
    engine: str | None = flag(
        None,
        "where the gallery is searched: http://HOST:PORT, a Milvus server or cluster; FILE.db, a file of Milvus Lite, for "
        "trials (default: here, by faiss)",
        metavar="URI",
    )
    seed: int = 0

    @property
    def plain(self) -> bool:
        """Whether it is the exact search, here, in descriptors as the network gives them."""
        exact = self.index == FLAT and self.engine is None
        return exact and self.pca_dim is None and self.dtype == DESCRIPTOR_DTYPES[0]


EXACT = RetrievalSettings()


def default_nprobe(lists: int) -> int:
    """One in 64 lists, at least 8 (all, where there are fewer)."""
    return min(lists, max(8, lists // 64))


def check_settings(settings: RetrievalSettings, dim: int, gallery: str, images: int) -> None:
    """What would fail after hours of embedding, or end the process, fails now; faiss refuses the rest itself.

    Parameters
    ----------
    dim : D of the network's descriptors.
    gallery, images : its name, for the message, and its size.

    Raises
    ------
    ValueError : the flags do not go together, or not with this gallery; the flag and what is possible are named.
    """
    shown, has = f"--index {settings.index}", f"the gallery {gallery} has {images} images"
    found = _FACTORY.fullmatch(settings.index)
    if not settings.index or not found:
        raise ValueError(f"{shown}: no index that is known here; give {SUPPORTED}")
    part = {name: int(value) for name, value in found.groupdict().items() if value}
    if settings.pca_whiten and settings.pca_dim is None:
        raise ValueError("--pca_whiten: give --pca_dim N too")
    if (settings.pca_dim or 0) > min(dim, images):
        raise ValueError(
            f"--pca_dim {settings.pca_dim}: descriptors have {dim} numbers and {has}; give at most {min(dim, images)}"
        )
    dim = settings.pca_dim or dim
    if settings.engine is not None:
        check_engine(settings.engine, settings.index, dim)
    if settings.nprobe is not None and settings.nprobe > part.get("lists", 0):
        lists = part.get("lists", "no")
        raise ValueError(f"--nprobe {settings.nprobe}: {shown} has {lists} lists; give no more, or leave it out")
    limits = {  # faiss takes other numbers without a word, and fails at them later
        "lists": (1, images, f"lists are possible: {has}, so IVF{max(1, images // ADVISED_PER_CENTROID)} fits"),
        "links": (4, 256, "links per image are possible, for example HNSW32"),
        "coarse_links": (4, 256, "links per list are possible, for example IVF4096_HNSW32"),
        "bits": (4, 12, "bits per part of PQ are possible"),
        "opq_dim": (1, dim, f"of a descriptor's {dim} numbers can be left by OPQ"),
    }
    for name, (least, most, possible) in limits.items():
        if not least <= part.get(name, least) <= most:
            raise ValueError(f"{shown}: {least} to {most} {possible}")
    rotated = part.get("opq_dim", dim)
    if "opq" in part and (part["opq"] < 1 or rotated % part["opq"]):
        raise ValueError(
            f"{shown}: OPQ{part['opq']} does not divide {rotated} numbers; give a divisor, or another --pca_dim"
        )
    bits = [part.get("bits", 8)] * ("parts" in part) + [OPQ_BITS] * ("opq" in part)
    if bits and 2 ** max(bits) > images:
        fewer = f"PQ{part['parts']}x{images.bit_length() - 1} or " if "opq" not in part and images >= 2**4 else ""
        raise ValueError(
            f"{shown}: its training takes {2 ** max(bits)} images or more and {has}; give {fewer}an index without PQ and OPQ"
        )
    import faiss  # not at the top: `--help` reads the flags above

    with faiss_errors(shown):
        faiss.index_factory(rotated, settings.index.split(",", 1)[1] if "opq" in part else settings.index)


@contextmanager
def faiss_errors(shown: str) -> Iterator[None]:
    """What faiss refuses, as one line that names the flag."""
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r".*(failed|\.cpp:\d+): ", "", " ".join(str(error).split()))  # without the place in faiss
        raise ValueError(f"{shown}: faiss refuses it ({reason}); give {SUPPORTED}") from error
