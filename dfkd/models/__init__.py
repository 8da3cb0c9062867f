"""Networks for teachers and students, generators, and what looks inside them."""

from dfkd.models.classifier import Classifier, Teacher, load_classifier, load_weights, save_classifier
from dfkd.models.cnn import cnn, cnn_bn
from dfkd.models.generator import DCGAN
from dfkd.models.hooks import batch_norms, watch_batch_norms, watch_channel_means
from dfkd.models.lenet import lenet, lenet_half
from dfkd.models.mlp import mlp
from dfkd.models.nayer import NLGenerator
from dfkd.models.resnet import resnet, resnet4
from dfkd.models.timm_model import timm_model
from dfkd.models.vgg import vgg
from dfkd.models.wrn import wrn

__all__ = [
    "DCGAN",
    "Classifier",
    "NLGenerator",
    "Teacher",
    "batch_norms",
    "cnn",
    "cnn_bn",
    "lenet",
    "lenet_half",
    "load_classifier",
    "load_weights",
    "mlp",
    "resnet",
    "resnet4",
    "save_classifier",
    "timm_model",
    "vgg",
    "watch_batch_norms",
    "watch_channel_means",
    "wrn",
]
