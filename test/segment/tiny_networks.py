# SPDX-License-Identifier: Apache-2.0
"""The real network classes, tiny and random: logic can be tested, masks mean nothing."""

from __future__ import annotations

import torch


def tiny_sam2(seed: int = 0):
    """A `Sam2VideoModel` of some ten thousand weights, for pictures of 64 px."""
    from transformers import Sam2VideoConfig, Sam2VideoMaskDecoderConfig, Sam2VideoModel

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
        mask_decoder_config=Sam2VideoMaskDecoderConfig(
            hidden_size=128, mlp_dim=32, num_hidden_layers=2, num_attention_heads=2,
            iou_head_hidden_dim=32,
        ),
        image_size=64,
        memory_attention_hidden_size=128, memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32, memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=128, memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128, memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32,
    )  # fmt: skip
    return Sam2VideoModel(config).eval()


def unlike_fresh(model, seed: int = 0):
    """The same network with every weight moved: fresh ones have zeros that hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


def tiny_edgetam(seed: int = 0):
    """An `EdgeTamVideoModel` for pictures of 64 px, its backbone SAM 2's: timm is not needed."""
    from transformers import EdgeTamVideoConfig, EdgeTamVideoModel

    torch.manual_seed(seed)
    given = tiny_sam2().config.to_dict()
    kept = ("vision_config", "prompt_encoder_config", "mask_decoder_config", "image_size")
    config = EdgeTamVideoConfig(
        **{key: given[key] for key in kept},
        memory_attention_hidden_size=128, memory_attention_num_layers=1,
        memory_attention_mlp_hidden_size=32, memory_attention_rope_feat_sizes=[4, 4],
        memory_attention_rope_k_sizes=[2, 2],
        memory_encoder_hidden_size=128, memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128, memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32,
        perceiver_resampler_num_latents=4, perceiver_resampler_num_latents_2d=4,
    )  # fmt: skip
    return EdgeTamVideoModel(config).eval()


def tiny_dino(seed: int = 0):
    """A `GroundingDinoForObjectDetection` with a vocabulary of a few words, and its tokenizer."""
    from transformers import (
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
    )

    torch.manual_seed(seed)
    # the model has the ids of [CLS], [SEP], '.' and '?' built in
    fixed = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]",
             1012: ".", 1029: "?"}  # fmt: skip
    words = ("red", "blue", "car", "person", "chair", "dog", "table", "lamp")
    vocabulary = {fixed.get(i, f"[unused{i}]"): i for i in range(1100)}
    vocabulary |= {word: 1100 + i for i, word in enumerate(words)}
    config = GroundingDinoConfig(
        backbone_config={
            "model_type": "swin", "image_size": 64, "window_size": 4, "embed_dim": 8,
            "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1],
            "out_features": ["stage2", "stage3", "stage4"],
        },
        text_config={
            "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 1120,
        },
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=20,
        max_text_len=16,
    )  # fmt: skip
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=True)
    return GroundingDinoForObjectDetection(config).eval(), tokenizer


def tiny_sam3(seed: int = 0):
    """A `Sam3VideoModel` for pictures of 112 px."""
    from transformers import Sam3VideoConfig, Sam3VideoModel

    torch.manual_seed(seed)
    heads = {"num_attention_heads": 2}
    small = {"hidden_size": 128, "intermediate_size": 32, **heads}
    vision = {
        "model_type": "sam3_vision_model", "fpn_hidden_size": 128,
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "backbone_config": {
            "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 32,
            "num_hidden_layers": 2, "image_size": 112, "patch_size": 14, "window_size": 4,
            "global_attn_indexes": [1], "pretrain_image_size": 56, **heads,
        },
    }  # fmt: skip
    text = {
        "model_type": "clip_text_model", "hidden_size": 32, "intermediate_size": 32,
        "num_hidden_layers": 1, "vocab_size": 64, "max_position_embeddings": 32,
        "projection_dim": 32, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, **heads,
    }  # fmt: skip
    detector = {
        "vision_config": vision, "text_config": text,
        "geometry_encoder_config": {"num_layers": 1, **small},
        "detr_encoder_config": {"num_layers": 1, **small},
        "detr_decoder_config": {"num_layers": 1, "num_queries": 6, **small},
        "mask_decoder_config": {"hidden_size": 128, "num_attention_heads": 2},
    }  # fmt: skip
    tracker = {
        "vision_config": vision,
        "prompt_encoder_config": {"hidden_size": 128, "image_size": 112, "patch_size": 14},
        "mask_decoder_config": {
            "hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
        },
        "memory_attention_hidden_size": 128, "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_rope_feat_sizes": [8, 8],
        "memory_encoder_hidden_size": 128, "mask_downsampler_embed_dim": 128,
        "memory_fuser_embed_dim": 128, "memory_fuser_intermediate_dim": 32,
        "memory_fuser_num_layers": 1,
    }  # fmt: skip
    config = Sam3VideoConfig(
        detector_config=detector, tracker_config=tracker, low_res_mask_size=32,
        new_det_thresh=0.0, score_threshold_detection=0.0,
    )  # fmt: skip
    config.image_size = 112  # given with the rest it would be ignored
    return Sam3VideoModel(config).eval()
