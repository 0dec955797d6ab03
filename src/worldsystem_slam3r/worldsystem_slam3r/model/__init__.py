# SPDX-License-Identifier: Apache-2.0
"""The SLAM3R networks: pictures to point maps, and point maps to one world.

`loading.load_networks(i2p, l2w, device=, dtype=)` makes `networks.Networks`, whose calls are
`encode`, `i2p`, `l2w`, `retrieval_scores`, and their cheaper forms `i2p_reference` and
`l2w_sources`, which compute only what a pipeline uses, on views whose own part (`i2p_sources`,
`l2w_references`; joined by `decoder.join_views`) was kept. `preprocess` makes the networks'
pictures, `retrieval.best_candidates` the choice by score.
"""
