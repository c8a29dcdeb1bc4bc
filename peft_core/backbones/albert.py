"""ALBERT (post-LN encoder whose layers share their weights in groups): Lan et al. 2020, arXiv 1909.11942.

A group of layers is one layer that runs several times in a forward; published models have one group. What a shared
layer means for a method:
    low-rank maps: a site exists once a group and its update acts in every use, as merging it into the weight would;
        gradients, and the scores of methods that grow or prune, are those of all uses together;
    adapters and prefixes: one a group, the same in every use; AdaMix draws one route a step for all uses;
    ProPETL: one mask a group, so with one group nothing is shared by masks;
    CapaBoost's masks and dropout: drawn once a group, the same in every use;
    bitfit and full: the group's own parameters.
Everything counts once a group, ranks too; only FLOPs count every use.
"""

from peft_core.backbones._family import SPAN, Family, PlacePattern, PrefixPattern, SitePattern, Stack

LAYER = "albert.encoder.albert_layer_groups.{layer}.albert_layers.0."

FAMILY = Family(
    name="albert",
    model_types=("albert",),
    modality="text",
    auto_model="AutoModelForSequenceClassification",
    body="albert",
    stacks=(
        Stack(
            name="group",
            layers="albert.encoder.albert_layer_groups",
            sites=(
                SitePattern("q", LAYER + "attention.query"),
                SitePattern("k", LAYER + "attention.key"),
                SitePattern("v", LAYER + "attention.value"),
                SitePattern("o", LAYER + "attention.dense"),
                SitePattern("ffn_in", LAYER + "ffn"),
                SitePattern("ffn_out", LAYER + "ffn_output"),
            ),
            pfeiffer=(PlacePattern("ffn", LAYER + "full_layer_layer_norm", "post_norm"),),
            houlsby=(
                PlacePattern("attention", LAYER + "attention.output_dropout", "sublayer"),
                PlacePattern("ffn", LAYER + "ffn_output", "sublayer"),
            ),
            prefixes=(PrefixPattern(LAYER + "attention"),),
        ),
    ),
    embeddings=("albert.embeddings", "albert.encoder.embedding_hidden_mapping_in"),
    head=("albert.pooler.", "classifier."),
    tasks={"span": SPAN},
    unused=("pooler.", "predictions.", "sop_classifier.", "embeddings.position_ids"),
    depth_field="num_hidden_layers",
    required=(("inner_group_num", 1),),
)
