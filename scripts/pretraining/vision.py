"""tiny-vision: ViT architecture, on freshly drawn shapes and strokes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import ViTConfig, ViTModel

from peft_core.tasks._drawing import SIZE, Drawing, Shape, contrasting, random_colour
from scripts.pretraining.fitting import Schedule, fit

PATCH = 8
DIRECTIONS = 8
"""Bins of an edge histogram."""


def random_stroke(rng: Random, ground: tuple[int, int, int]) -> list[Shape]:
    """A bent line of two to five pieces, like a written sign."""
    colour = contrasting(rng, ground)
    x, y, turn = 8 + 16 * rng.random(), 8 + 16 * rng.random(), 360 * rng.random()
    pieces = []
    for _ in range(2 + int(rng.random() * 4)):
        radius = 2.5 + 2.5 * rng.random()
        dx, dy = math.cos(math.radians(turn)) * radius, -math.sin(math.radians(turn)) * radius
        thick = (1.0 + rng.random()) / radius
        pieces.append(Shape("stroke", x + dx, y + dy, radius, turn, thick, colour))
        x, y = x + 2 * dx, y + 2 * dy
        if not (3 < x < SIZE - 3 and 3 < y < SIZE - 3):
            turn += 180
        turn += 120 * (rng.random() - 0.5)
    return pieces


def random_scene(rng: Random) -> Drawing:
    """Shapes that may overlap, or written signs, in any colours."""
    ground = (0, 0, 0) if rng.random() < 0.25 else random_colour(rng)
    if rng.random() < 0.5:
        shapes = random_stroke(rng, ground)
    else:
        kinds = ("ellipse", "box", "triangle", "arrow")
        shapes = []
        for _ in range(1 + int(rng.random() * 6)):
            radius = 2 + 8 * rng.random() ** 2
            place = (SIZE * (0.1 + 0.8 * rng.random()), SIZE * (0.1 + 0.8 * rng.random()))
            kind = kinds[int(rng.random() * len(kinds))]
            colour = contrasting(rng, ground)
            shapes.append(Shape(kind, *place, radius, 360 * rng.random(), 0.3 + 0.5 * rng.random(), colour))
    return Drawing(tuple(shapes), ground, 12.0 * rng.random(), rng.getrandbits(32))


def scene_attributes(scene: Drawing) -> list[float]:
    """The ground's colour, and colour, place and size of the topmost shape, all about -1 to 1."""
    top = scene.shapes[-1]
    colours = [channel / 127.5 - 1 for channel in (*scene.ground, *top.colour)]
    return [*colours, top.x / (SIZE / 2) - 1, top.y / (SIZE / 2) - 1, top.radius / 5 - 1]


def patches_of(pixels: torch.Tensor) -> torch.Tensor:
    """(rows, 3, SIZE, SIZE) to (rows, patches, 3 * PATCH * PATCH), each patch standardised."""
    parts = pixels.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    return (parts - parts.mean(-1, keepdim=True)) / (parts.std(-1, keepdim=True) + 0.05)


def edges_of(pixels: torch.Tensor) -> torch.Tensor:
    """Histograms of edge directions: (rows, 3, SIZE, SIZE) to (rows, patches, 4 cells x DIRECTIONS), from 0 to 1.

    The channel with the steepest slope counts, with its sign, so that a direction covers the full circle.
    """
    padded = F.pad(pixels, (1, 1, 1, 1), mode="replicate")
    across, down = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2], padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    strength, channel = (across**2 + down**2).max(1, keepdim=True)
    across, down = across.gather(1, channel)[:, 0], down.gather(1, channel)[:, 0]
    turn = torch.atan2(-down, across) / (2 * math.pi) * DIRECTIONS
    bins = F.one_hot(turn.round().long() % DIRECTIONS, DIRECTIONS).permute(0, 3, 1, 2)
    cells = F.avg_pool2d(bins * strength.sqrt(), PATCH // 2)
    parts = cells.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    return parts / (parts.norm(dim=-1, keepdim=True) + 0.1)


def cover_of(pixels: torch.Tensor, scenes: list[Drawing]) -> torch.Tensor:
    """How much of each patch is not ground, (rows, patches), from -1 to 1."""
    grounds = torch.tensor([scene.ground for scene in scenes])[:, :, None, None] / 127.5 - 1
    figure = ((pixels - grounds).abs().sum(1, keepdim=True) > 0.8).float()
    return F.avg_pool2d(figure, PATCH).flatten(1) * 2 - 1


def pretrain_vision(seed: int, folder: Path, schedule: Schedule) -> dict[str, Any]:
    """ViT: hidden patches and edges, and on the first token what covers the ground where. All heads are dropped."""
    config = ViTConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        image_size=SIZE,
        patch_size=PATCH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = ViTModel(config, add_pooling_layer=False, use_mask_token=True)
    count = (SIZE // PATCH) ** 2
    painter, tracer, describer = (
        nn.Linear(config.hidden_size, width) for width in (3 * PATCH * PATCH, 4 * DIRECTIONS, 9 + count)
    )
    rng = Random(f"scenes:{seed}")
    generator = torch.Generator().manual_seed(seed)

    def losses(step: int) -> dict[str, torch.Tensor]:
        scenes = [random_scene(rng) for _ in range(schedule.batch_size)]
        pixels = torch.from_numpy(np.stack([scene.pixels() for scene in scenes])).permute(0, 3, 1, 2) / 127.5 - 1
        wanted = torch.cat(
            [torch.tensor([scene_attributes(scene) for scene in scenes]), cover_of(pixels, scenes)], dim=1
        )
        hidden_places = torch.rand(len(scenes), count, generator=generator) < 0.3
        states = model(pixels, bool_masked_pos=hidden_places).last_hidden_state
        drawn = painter(states[:, 1:][hidden_places])
        return {
            "hidden_patches": F.mse_loss(drawn, patches_of(pixels)[hidden_places]),
            "edges": 20.0 * F.mse_loss(tracer(states[:, 1:]), edges_of(pixels)),
            "scene": F.mse_loss(describer(states[:, 0]), wanted),
        }

    curve = fit(nn.ModuleList([model, painter, tracer, describer]), schedule, losses)
    body = ViTModel(config, add_pooling_layer=False)
    kept = {name: value for name, value in model.state_dict().items() if not name.endswith("mask_token")}
    body.load_state_dict(kept)
    body.save_pretrained(folder)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": SIZE, "width": SIZE},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    return {
        "objectives": {
            "hidden_patches": "mean squared error of 30% hidden patches, each standardised",
            "edges": "20 x mean squared error of every patch's histograms of edge directions, hidden or not",
            "scene": "mean squared error on the first token: colour of the ground; colour, place and size of the "
            "topmost shape; share of each patch that is covered",
        },
        "data": "freshly drawn shapes and strokes (random_scene in scripts/pretraining/vision.py)",
        "curve": curve,
    }
