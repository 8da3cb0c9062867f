"""Networks of teachers and students, generators, and hooks that record or change their features.

May be imported by dfkd.weights and later rooms.
"""

from dfkd.models.classifier import Classifier, Teacher, load_classifier, load_weights, save_classifier
from dfkd.models.cnn import cnn, cnn_bn
from dfkd.models.generator import DCGAN, MLPGenerator
from dfkd.models.hooks import (
    attention_layers,
    batch_norms,
    classifier_head,
    frozen_norms,
    has_convolutions,
    watch_batch_norms,
    watch_channel_means,
    watch_features,
    watch_patches,
)
from dfkd.models.lenet import lenet, lenet_half
from dfkd.models.mlp import mlp
from dfkd.models.nayer import NLGenerator
from dfkd.models.resnet import resnet, resnet4
from dfkd.models.resnet_cbn import ResNetCBN
from dfkd.models.soundness import broken_weights, check_training_mode, refuse_broken
from dfkd.models.stages import on_stages, record_stages, stage_shapes, stages, watch_stage_means
from dfkd.models.timm_model import timm_model
from dfkd.models.vgg import vgg
from dfkd.models.wrn import wrn

__all__ = [
    "DCGAN",
    "Classifier",
    "MLPGenerator",
    "NLGenerator",
    "ResNetCBN",
    "Teacher",
    "attention_layers",
    "batch_norms",
    "broken_weights",
    "check_training_mode",
    "classifier_head",
    "cnn",
    "cnn_bn",
    "frozen_norms",
    "has_convolutions",
    "lenet",
    "lenet_half",
    "load_classifier",
    "load_weights",
    "mlp",
    "on_stages",
    "record_stages",
    "refuse_broken",
    "resnet",
    "resnet4",
    "save_classifier",
    "stage_shapes",
    "stages",
    "timm_model",
    "vgg",
    "watch_batch_norms",
    "watch_channel_means",
    "watch_features",
    "watch_patches",
    "watch_stage_means",
    "wrn",
]
