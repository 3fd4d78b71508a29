"""Images -> descriptors -> neighbours."""

__all__ = ["Localizer"]


def __getattr__(name: str) -> type:
    """`Localizer` is imported when it is asked for: `--help` reads the flags of this room, and goes without torch."""
    if name == "Localizer":
        from utils.retrieval.localizer import Localizer

        return Localizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
