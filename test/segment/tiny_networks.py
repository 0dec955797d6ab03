# SPDX-License-Identifier: Apache-2.0
"""The real network classes in tiny random configurations: logic can be tested, masks mean nothing."""

from __future__ import annotations

import torch


def tiny_sam2(seed: int = 0):
    """A `Sam2VideoModel` of some ten thousand weights, for pictures of 64 px."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    torch.manual_seed(seed)
    hiera = {
        "hidden_size": 8, "num_attention_heads": 1, "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 1, 1], "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 1, 1], "window_size_per_stage": [4, 4, 4, 4],
        "global_attention_blocks": [], "window_positional_embedding_background_size": [2, 2],
        "query_stride": [2, 2], "num_query_pool_stages": 3, "model_type": "sam2_hiera_det_model",
    }  # fmt: skip
    vision = {
        "backbone_config": hiera, "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]], "fpn_hidden_size": 128,
        "num_feature_levels": 3, "model_type": "sam2_vision_model",
    }  # fmt: skip
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": 64, "mask_input_channels": 16},
        mask_decoder_config={
            "hidden_size": 128, "mlp_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
        image_size=64,
        memory_attention_hidden_size=128, memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32, memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=128, memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128, memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32,
    )  # fmt: skip
    return Sam2VideoModel(config).eval()
