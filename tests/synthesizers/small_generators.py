"""Every kind of generator, small."""

from dfkd.models import DCGAN, ResNetCBN

GENERATORS = {
    "dcgan": lambda shape: DCGAN(shape, latent=8, width=8),
    "large": lambda shape: DCGAN(shape, latent=8, width=8, start=16),
    "resnet_cbn": lambda shape: ResNetCBN(shape, 10, latent=8, width=8),
    "resnet_cbn_attention": lambda shape: ResNetCBN(shape, 10, latent=8, width=8, attention=True),
}
