"""What Milvus takes: an address, and an index named as faiss names it. pymilvus is imported when it is needed."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymilvus import MilvusClient

INDEXES = {
    r"Flat": "FLAT",
    r"HNSW(?P<M>\d+)(?:,Flat)?": "HNSW",
    r"IVF(?P<nlist>\d+),Flat": "IVF_FLAT",
    r"IVF(?P<nlist>\d+),SQ8": "IVF_SQ8",
    r"IVF(?P<nlist>\d+),PQ(?P<m>\d+)(?:x(?P<nbits>\d+))?": "IVF_PQ",
}
"""faiss factory string -> Milvus's name of the index; groups are Milvus's parameters."""
OFFERED = "Flat, HNSW32, IVF4096,Flat, IVF4096,SQ8 or IVF4096,PQ64"
EF_CONSTRUCTION = 200
MOST_NUMBERS = 32_768
MOST_LISTS = 65_536
SECONDS_TO_CONNECT = 10
TOKEN = "SEGVPR_MILVUS_TOKEN"
"""Environment variable with `user:password`, or a token, of a server that asks for it."""


class EngineError(OSError):
    """Milvus cannot be reached, or refuses a request; the message is one line."""


def milvus_index(factory: str) -> tuple[str, dict[str, int]]:
    """Milvus's name and parameters of a faiss index; ValueError if it has no such index."""
    for pattern, kind in INDEXES.items():
        if found := re.fullmatch(pattern, factory):
            parameters = {name: int(value) for name, value in found.groupdict().items() if value}
            return kind, parameters | ({"efConstruction": EF_CONSTRUCTION} if kind == "HNSW" else {})
    raise ValueError(f"--index {factory}: Milvus has no such index; with --engine, give {OFFERED}")


def check_engine(uri: str, factory: str, dim: int) -> None:
    """ValueError or OSError if this engine cannot be reached, or cannot search descriptors of `dim` numbers in this way."""
    kind, parameters = milvus_index(factory)
    if parameters.get("nlist", 0) > MOST_LISTS:
        raise ValueError(f"--index {factory}: Milvus takes at most {MOST_LISTS} lists; give fewer")
    if is_lite(uri) and kind == "IVF_PQ":
        raise ValueError(
            f"--index {factory}: Milvus Lite has no such index; with a file, give IVF4096,SQ8 or a simpler one"
        )
    if dim > MOST_NUMBERS:
        raise ValueError(f"--engine: Milvus takes at most {MOST_NUMBERS} numbers, not {dim}; give --pca_dim too")
    connect(uri).close()


def connect(uri: str) -> "MilvusClient":
    """A client of a server, or of a file of Milvus Lite; ValueError or OSError, in one line, if that is not possible."""
    lite = is_lite(uri)
    if "@" in uri and not lite:
        raise ValueError(f"--engine: results keep the address, so leave user and password out, and set {TOKEN}")
    if not lite and not re.match("https?://.", uri):
        raise ValueError(f"--engine {uri}: give http://HOST:PORT or FILE.db")
    absent = [name for name in ("pymilvus", *(["milvus_lite"] if lite else [])) if find_spec(name) is None]
    if absent:
        raise ValueError(f"--engine {uri}: needs {' and '.join(absent)}: pip install pymilvus milvus-lite")
    for name in ("pymilvus", "milvus_lite", "grpc"):  # they print what they raise, with its traceback
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # the processes that read images do not use it
    from pymilvus import MilvusClient

    # Lite answers pings with a complaint on stderr
    quiet = {"grpc_options": {"grpc.keepalive_time_ms": 2**31 - 1}} if lite else {}
    remedy = (
        "see that no other process has this file open, and that it was made by Milvus Lite"
        if lite
        else "see that the server runs, and that the address is right"
    )
    with milvus_errors(uri, f"; {remedy}"):
        return MilvusClient(uri, token=os.environ.get(TOKEN, ""), timeout=SECONDS_TO_CONNECT, **quiet)


def is_lite(uri: str) -> bool:
    return uri.endswith(".db")


@contextmanager
def milvus_errors(uri: str, remedy: str = "") -> Iterator[None]:
    """What Milvus refuses, as one line that names the flag."""
    from grpc import RpcError
    from pymilvus import MilvusException

    try:
        yield
    except (MilvusException, RpcError, ValueError) as error:  # ValueError: a port that is no number
        reason = " ".join(str(getattr(error, "message", error)).split())
        raise EngineError(f"--engine {uri}: {reason}{remedy}") from error
