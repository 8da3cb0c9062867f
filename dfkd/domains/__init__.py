"""Domains: real images (or points, or embeddings) with their labels, split into training, validation and test.

May be imported by dfkd.triggers and later rooms.
"""

from dfkd.domains.base import Domain, Images, check_normalisation, fit_images, to_float
from dfkd.domains.digits import digits
from dfkd.domains.docstrings import docstrings
from dfkd.domains.doubts import doubts
from dfkd.domains.embeddings import embeddings
from dfkd.domains.files import image_folder, npz
from dfkd.domains.increment import increment
from dfkd.domains.modality import EMBEDDINGS, IMAGES, POINTS, Modality
from dfkd.domains.pictures import open_picture, read_picture
from dfkd.domains.points import points
from dfkd.domains.restyle import textured, tinted
from dfkd.domains.textures import textures
from dfkd.domains.vision import vision

__all__ = [
    "EMBEDDINGS",
    "IMAGES",
    "POINTS",
    "Domain",
    "Images",
    "Modality",
    "check_normalisation",
    "digits",
    "docstrings",
    "doubts",
    "embeddings",
    "fit_images",
    "image_folder",
    "increment",
    "npz",
    "open_picture",
    "points",
    "read_picture",
    "textured",
    "textures",
    "tinted",
    "to_float",
    "vision",
]
