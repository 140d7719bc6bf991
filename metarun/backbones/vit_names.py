"""The names that published Vision Transformers have in their files.

timm         the package timm; also DeiT, MAE, and facebookresearch/dino, whose names are the same
dino         facebookresearch/dino: as timm, but positions are interpolated in its own way; never detected
dinov2       facebookresearch/dinov2
torchvision  torchvision.models.vit_*
hf_vit       ViTModel of Hugging Face transformers
hf_dinov2    Dinov2Model and Dinov2WithRegistersModel of it
hf_clip      CLIPModel and CLIPVisionModel of it
clip         openai/CLIP and open_clip
"""

from typing import NamedTuple

from metarun.backbones.position_grid import Rule


class Names(NamedTuple):
    """The names of one layout; {} stands for weight or bias, and for the number of a block."""

    class_token: str
    positions: str
    patches: str
    block: str
    projection: tuple[str, ...]  # to queries, keys and values: together, or one by one
    mix: str
    norms: tuple[str, str]  # before the attention, before the dense layers
    dense: tuple[str, str]
    norm: str
    gains: tuple[str, str] = ("", "")
    registers: str = ""
    norm_before: str = ""
    output: str = ""  # the projection of the features
    # Of names that may stand in the file beside those of the network.
    ignored: str = r"(head|head_dist|classifier|pooler|decoder\w*|fc)\..*|\w*mask_token"
    epsilon: float = 1e-6
    activation: str = "gelu"
    rule: Rule = "bicubic"

    @property
    def flat(self) -> bool:
        """Whether class token and positions have no leading axes of one, as in CLIP."""
        return self.class_token.endswith("class_embedding")


TIMM = Names(
    "cls_token",
    "pos_embed",
    "patch_embed.proj.{}",
    "blocks.{}.",
    ("attn.qkv.{}",),
    "attn.proj.{}",
    ("norm1.{}", "norm2.{}"),
    ("mlp.fc1.{}", "mlp.fc2.{}"),
    "norm.{}",
    ("ls1.gamma", "ls2.gamma"),
    "reg_token",
    "norm_pre.{}",
    rule="antialiased",
)
HF_VIT = Names(
    "embeddings.cls_token",
    "embeddings.position_embeddings",
    "embeddings.patch_embeddings.projection.{}",
    "encoder.layer.{}.",
    tuple(f"attention.attention.{name}.{{}}" for name in ("query", "key", "value")),
    "attention.output.dense.{}",
    ("layernorm_before.{}", "layernorm_after.{}"),
    ("intermediate.dense.{}", "output.dense.{}"),
    "layernorm.{}",
    ignored=r"(pooler|classifier|decoder)\..*|embeddings\.mask_token",
    epsilon=1e-12,
)
CLIP = Names(
    "class_embedding",
    "positional_embedding",
    "conv1.{}",
    "transformer.resblocks.{}.",
    ("attn.in_proj_{}",),
    "attn.out_proj.{}",
    ("ln_1.{}", "ln_2.{}"),
    ("mlp.c_fc.{}", "mlp.c_proj.{}"),
    "ln_post.{}",
    norm_before="ln_pre.{}",
    output="proj",
    ignored=r"(?!)",
    epsilon=1e-5,
    activation="quick_gelu",
    rule="antialiased",
)
TORCHVISION = Names(
    "class_token",
    "encoder.pos_embedding",
    "conv_proj.{}",
    "encoder.layers.encoder_layer_{}.",
    ("self_attention.in_proj_{}",),
    "self_attention.out_proj.{}",
    ("ln_1.{}", "ln_2.{}"),
    ("mlp.0.{}", "mlp.3.{}"),
    "encoder.ln.{}",
    ignored=r"heads\..*",
    rule="corners",
)
HF_CLIP = Names(
    "vision_model.embeddings.class_embedding",
    "vision_model.embeddings.position_embedding.weight",
    "vision_model.embeddings.patch_embedding.{}",
    "vision_model.encoder.layers.{}.",
    tuple(f"self_attn.{name}_proj.{{}}" for name in "qkv"),
    "self_attn.out_proj.{}",
    ("layer_norm1.{}", "layer_norm2.{}"),
    ("mlp.fc1.{}", "mlp.fc2.{}"),
    "vision_model.post_layernorm.{}",
    norm_before="vision_model.pre_layrnorm.{}",  # so it is spelt there
    output="visual_projection.weight",
    ignored=r"text_model\..*|text_projection\..*|logit_scale|logit_bias|.*\.position_ids",
    epsilon=1e-5,
    activation="quick_gelu",
)
LAYOUTS: dict[str, Names] = {
    "dinov2": TIMM._replace(registers="register_tokens", rule="offset"),
    "timm": TIMM,
    "dino": TIMM._replace(rule="offset"),
    "torchvision": TORCHVISION,
    "torchvision_old": TORCHVISION._replace(dense=("mlp.linear_1.{}", "mlp.linear_2.{}")),
    "hf_vit": HF_VIT,
    "hf_dinov2": HF_VIT._replace(
        norms=("norm1.{}", "norm2.{}"),
        dense=("mlp.fc1.{}", "mlp.fc2.{}"),
        gains=("layer_scale1.lambda1", "layer_scale2.lambda1"),
        registers="embeddings.register_tokens",
        epsilon=1e-6,
    ),
    "hf_clip": HF_CLIP,
    "clip": CLIP,
}
