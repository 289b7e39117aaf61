"""The pure functions of the methods, under their registered names."""

from kdzoo.methods.at import at
from kdzoo.methods.crd import crd
from kdzoo.methods.fitnet import fitnet
from kdzoo.methods.hinton import hinton
from kdzoo.methods.logits import logits
from kdzoo.methods.rkd import rkd

__all__ = ["at", "crd", "fitnet", "hinton", "logits", "rkd"]
