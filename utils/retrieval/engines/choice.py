"""Which engine searches a gallery."""

import numpy as np

from datasets.places import ImageSet
from utils.retrieval.engines.milvus import MilvusGallery
from utils.retrieval.index import SearchableGallery
from utils.retrieval.settings import RetrievalSettings
from utils.retrieval.store import folder_of


def searchable(descriptors: np.ndarray, settings: RetrievalSettings, images: ImageSet) -> SearchableGallery:
    """The descriptors (G, D) of a gallery's images, ready to be searched where the settings say; what is derived is kept."""
    folder = folder_of(descriptors)
    if settings.engine is None:
        return SearchableGallery(descriptors, settings, folder)
    return MilvusGallery(descriptors, settings, folder, images)
