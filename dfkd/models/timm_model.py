"""Networks of the timm library, with a stem for small images."""

import difflib

from torch import Tensor, nn


class TimmNet(nn.Module):
    """A timm network with this package's interface: `forward(x) = head(features(x))`."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    @property
    def head(self) -> nn.Module:
        return self.net.get_classifier()

    @property
    def stages(self) -> list[nn.Module]:
        """The modules in timm's `feature_info`: stem and stages of a convolutional network, blocks of a ViT."""
        return [self.net.get_submodule(tap["module"]) for tap in getattr(self.net, "feature_info", ())]

    @property
    def attention_layers(self) -> list[nn.Module]:
        """The self-attention layers of a plain vision transformer (ViT, DeiT), with `num_heads` and `proj`; or []."""
        if not hasattr(self.net, "num_prefix_tokens"):
            return []
        layers = [getattr(block, "attn", None) for block in getattr(self.net, "blocks", ())]
        return [layer for layer in layers if hasattr(layer, "num_heads") and hasattr(layer, "proj")]

    @property
    def prefix_tokens(self) -> int:
        """The number of tokens before the patches: class tokens and registers."""
        return getattr(self.net, "num_prefix_tokens", 0)

    @property
    def channels_last(self) -> bool:
        """Whether feature maps are (B, H, W, C), as in Swin transformers."""
        return getattr(self.net, "output_fmt", "NCHW") == "NHWC"

    def features(self, x: Tensor) -> Tensor:
        """Pooled pre-logit features (B, D) of images (B, C, H, W)."""
        return self.net.forward_head(self.net.forward_features(x), pre_logits=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def timm_model(
    shape: tuple[int, int, int],
    classes: int,
    model: str = "resnet18",
    patch_size: int | None = 4,
    small_stem: bool = True,
) -> TimmNet:
    """Create a timm network by name, randomly initialised.

    Args:
        model: name in timm (`timm.list_models()`).
        patch_size: patch side of a vision transformer, in pixels; it must divide the image sides. None means the
            model's own patch size, the only one that some stems allow (coat, crossvit, levit, hybrids).
        small_stem: for convolutional networks, make the first convolution 3x3 with stride 1 and remove the stem's
            max-pooling, as CAKE and the CIFAR literature do.

    Raises:
        ValueError: the name is unknown, patch_size does not divide the image sides, or timm cannot create the model for
            these images and patches.
    """
    import timm  # 1.5 s to import

    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=3)
        raise ValueError(f"timm knows no model '{model}'; nearest: {', '.join(near) or 'see timm.list_models()'}")
    channels, height, width = shape
    arguments = {"num_classes": classes, "in_chans": channels}
    transformer = timm.get_pretrained_cfg(model) is not None and timm.get_pretrained_cfg(model).fixed_input_size
    if transformer:
        arguments["img_size"] = height, width
        if patch_size is not None:
            if height % patch_size or width % patch_size:
                raise ValueError(
                    f"patch_size={patch_size} does not divide the {height}x{width} image (points and embeddings need "
                    f"network=mlp)"
                )
            arguments["patch_size"] = patch_size
    try:
        net = timm.create_model(model, pretrained=False, **arguments)
    except Exception as error:  # the exception types differ from model to model
        own = "patch_size=null for the patches of its own stem, " if "patch_size" in arguments else ""
        options = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise ValueError(
            f"timm cannot make {model} with {options} ({str(error) or type(error).__name__}); set {own}another "
            f"data.size, or another model"
        ) from error
    if small_stem and not transformer:
        _shrink_stem(net)
    return TimmNet(net)


def _shrink_stem(net: nn.Module) -> None:
    """Replace the first convolution by a 3x3 one of stride 1 and the stem's max-pooling by the identity."""
    first = net.default_cfg.get("first_conv")
    if isinstance(first, str):
        *path, name = first.split(".")
        parent = net.get_submodule(".".join(path))
        conv = getattr(parent, name)
        if isinstance(conv, nn.Conv2d) and max(conv.stride) > 1:
            small = nn.Conv2d(conv.in_channels, conv.out_channels, 3, 1, 1, bias=conv.bias is not None)
            setattr(parent, name, small)
    if isinstance(getattr(net, "maxpool", None), nn.Module):
        net.maxpool = nn.Identity()
