"""Pretrain `emoji-tiny`, the embedded CLIP, on the emoji world and on rendered words.

    python examples/emoji_world/pretrain.py run --steps 8000            # stop it when you like
    python examples/emoji_world/pretrain.py run --steps 9000 --cooldown 1500
    python examples/emoji_world/pretrain.py export              # → clipalign/models/emoji_tiny/

    # another machine, where no checkpoint lies: go on from the weights that ship
    python examples/emoji_world/pretrain.py run --from-shipped --steps 9000 --cooldown 1500

The learning rate is constant after a warm-up and falls to zero over the last `--cooldown` steps, so
that the length need not be known beforehand. A checkpoint is written every 250 steps; `run`
continues from the newest, or from the weights that ship, with a new optimiser and its warm-up.
Every step draws its pictures from its own seed, so a resumed training sees what an undisturbed one
would.

What it sees: pictures of drawings (half of them of the 200 everyday concepts, the web's skew),
people (women and men of an occupation in the proportion of the labour statistics, with captions
that leave the commoner gender out more often than the rarer, as people write), and words on a
third of all pictures, captioned mostly by the word, as the web is. Of the others a share
(`--covered`) is covered in part, by a label without a word, a scribble or a patch, so that the
model misses no drawing only because a note hides a corner of it. It never sees a held-out drawing,
the style `emojitwo`, a test font, or a test background.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from clipalign.datasets.emoji import (
    DATA,
    PRETRAINING_STYLES,
    STYLES,
    EmojiWorld,
    background,
    compose,
    emoji_table,
    sprite,
    vary,
)
from clipalign.tasks.rendering import INKS, LABELS, draw_attack

HERE = Path(__file__).resolve().parent
MODEL = HERE.parents[1] / "clipalign" / "models" / "emoji_tiny"
CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {"layers": [2, 2, 2, 1], "width": 32, "image_size": 64, "patch_size": None},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3},
}
PREPROCESS = {
    "size": 64, "mode": "RGB", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic", "resize_mode": "shortest",
}  # fmt: skip
TEMPLATES = (
    *("a photo of a {}.",) * 4, "a picture of a {}.", "a drawing of a {}.", "an image of a {}.",
    "an emoji of a {}.", "a {}.", "{}", "{}.",
)  # fmt: skip
WORD_TEMPLATES = (*TEMPLATES, "the word {}.", "a sign that says {}.")
ALL_STYLES = (*STYLES, *PRETRAINING_STYLES)
BATCH, WARMUP = 256, 300


class World:
    """Draws one captioned picture at a time, from concepts, people and words."""

    def __init__(self, covered: float = 0.4) -> None:
        self.covered = covered
        table = emoji_table()
        self.everyday = [e for e in table if e.everyday]
        self.things = [e for e in table if not e.gender and not e.everyday]
        self.people: dict[str, dict[str, list]] = {}
        for e in table:
            if e.gender:
                self.people.setdefault(e.concept, {}).setdefault(e.gender, []).append(e)
        with open(DATA / "occupations.csv", newline="") as file:
            self.women = {
                r["occupation"]: float(r["percent_women"]) / 100 for r in csv.DictReader(file)
            }
        self.core = [e.label for e in self.everyday]
        self.rare = sorted(
            {e.label for e in self.things if e.label.isascii() and len(e.label) <= 12}
        )
        names = (
            {e.label for e in table} | {e.concept for e in table} | set(self.core) | set(self.rare)
        )
        names |= {"woman", "man", "person", *(k for e in table for k in e.keywords)}
        self.subjects = {name: i for i, name in enumerate(sorted(names))}

    def drawing(self, emoji, rng: random.Random) -> Image.Image:
        # where Noto's drawing is held out, its predecessor, which may resemble it, is too
        kept_out = {emoji.held_out, "noto-v1" if emoji.held_out == "noto" else ""}
        seen = [s for s in ALL_STYLES if s in emoji.styles and s not in kept_out]
        return vary(sprite(emoji.index, rng.choice(seen)), rng)

    def person(self, rng: random.Random):
        concept = rng.choice(list(self.people))
        by_gender = self.people[concept]
        gender = "woman" if rng.random() < self.women.get(concept, 0.5) else "man"
        if rng.random() < 0.1 and "person" in by_gender:
            gender = "person"
        return rng.choice(by_gender[gender])

    def unmarked(self, emoji) -> float:
        """How often a caption of a person leaves the gender out: the rarer, the less often.

        As people write "a male nurse" and "a nurse", so that "nurse" comes to lean to women.
        """
        women = self.women.get(emoji.concept, 0.5)
        return 0.8 * {"woman": women, "man": 1 - women}.get(emoji.gender, 0.5)

    def cover(self, image: Image.Image, rng: random.Random) -> Image.Image:
        """Hide a part of some pictures, by what the caption will not mention."""
        if rng.random() >= self.covered:
            return image
        word, kind = rng.choice(self.rare), rng.random()
        if kind < 0.25:  # letters that spell nothing
            letters = "".join(rng.choice("bcdfghjklmnpqrstvwxz") for _ in word)
            style = "outlined" if kind < 0.15 else "note"
            return draw_attack(image, letters, rng, style=style)[0]
        if kind < 0.4:  # something of another colour
            width, height = (rng.randint(8, 28) for _ in range(2))
            part = background(rng, "train").resize((width, height))
            image.paste(part, (rng.randint(0, 64 - width), rng.randint(0, 64 - height)))
            return image
        _, label = draw_attack(image, word, rng, style="note")
        left, top, right, bottom = label.box
        paint = ImageDraw.Draw(image)
        paint.rectangle((left, top, right - 1, bottom - 1), fill=rng.choice(LABELS["train"]))
        if kind < 0.65:  # a scribble, as a word too small or too hasty to read
            points = [
                (x, rng.randint(top + 2, bottom - 3))
                for x in range(left + 2, right - 2, rng.randint(2, 4))
            ]
            paint.line(points, fill=rng.choice(INKS["train"]))
        return image

    def draw(self, rng: random.Random, easy: bool) -> tuple[Image.Image, str, tuple, tuple]:
        """A picture, its caption, what the picture shows and what the caption says.

        The last two are (subject, subject, gender), −1 for none: pairs of a batch that happen to
        agree are not used as negatives. While `easy`, words are everyday names, large, on labels.
        """
        kind = rng.random()
        if kind < (0.05 if easy else 0.15):
            return self.draw_person(rng)
        emoji = rng.choice(self.everyday if rng.random() < 0.5 else self.things)
        thing = self.subjects[emoji.label]
        if kind < (0.2 if easy else 0.65):
            image = self.cover(compose(self.drawing(emoji, rng), rng, "train"), rng)
            name = emoji.label
            if emoji.keywords and rng.random() < 0.15:
                name = rng.choice(emoji.keywords)
            says = (self.subjects[name], -1, -1)
            # the shown subjects are the name and, if it was used, the keyword
            return image, rng.choice(TEMPLATES).format(name), (thing, says[0], -1), says
        word = rng.choice(self.core if easy or rng.random() < 0.7 else self.rare)
        spelt = self.subjects[word]
        style = "note" if easy or rng.random() < 0.6 else "outlined"
        size = rng.randint(13, 17) if easy else None
        if rng.random() < (0.7 if easy else 0.3):
            image, _ = draw_attack(background(rng, "train"), word, rng, style=style, size=size)
            caption = rng.choice(WORD_TEMPLATES).format(word)
            return image, caption, (spelt, -1, -1), (spelt, -1, -1)
        image = compose(self.drawing(emoji, rng), rng, "train")
        image, _ = draw_attack(image, word, rng, style=style, size=size)
        shown, say = (thing, spelt, -1), rng.random()
        if say < 0.65:
            return image, rng.choice(WORD_TEMPLATES).format(word), shown, (spelt, -1, -1)
        if say < 0.9:
            return image, rng.choice(TEMPLATES).format(emoji.label), shown, (thing, -1, -1)
        caption = f"a {emoji.label} with the word {word}."
        return image, caption, shown, (thing, spelt, -1)

    def draw_person(self, rng: random.Random) -> tuple[Image.Image, str, tuple, tuple]:
        emoji = self.person(rng)
        image = self.cover(compose(self.drawing(emoji, rng), rng, "train"), rng)
        concept = self.subjects[emoji.concept]
        gender = ("woman", "man", "person").index(emoji.gender)
        shown, say = (concept, self.subjects[emoji.gender], gender), rng.random()
        template = rng.choice(TEMPLATES)
        if say < self.unmarked(emoji):
            return image, template.format(emoji.concept), shown, (concept, -1, -1)
        if say < 0.85:
            name = f"{emoji.gender} {emoji.concept}" if gender < 2 else emoji.label
            return image, template.format(name), shown, (concept, -1, gender)
        return image, template.format(emoji.gender), shown, (-1, -1, gender)


def agree(shown: Tensor, says: Tensor) -> Tensor:
    """[B, B] whether what caption j says is true of picture i (both [B, 3])."""
    first, second, gender = (says[:, k].unsqueeze(0) for k in range(3))
    a, b, g = (shown[:, k].unsqueeze(1) for k in range(3))
    there = lambda s: (s < 0) | (s == a) | (s == b)  # noqa: E731
    return there(first) & there(second) & ((gender < 0) | (gender == g))


class Tokens:
    """open_clip's tokens, renumbered to those that captions use: a small embedding to train."""

    def __init__(self, world: World) -> None:
        self.tokenize = open_clip.tokenizer.SimpleTokenizer(context_length=16)
        names = [*world.subjects, *(f"{g} {c}" for g in ("woman", "man") for c in world.people)]
        texts = [
            t.format(n) for n in names for t in (*set(WORD_TEMPLATES), "a {0} with the word {0}.")
        ]
        used = torch.cat([self.tokenize(texts).flatten(), torch.arange(512)]).unique()
        self.used = (
            used  # ascending, so that the end token stays the largest (text pooling needs it)
        )
        self.small = torch.full((49408,), -1, dtype=torch.long)
        self.small[used] = torch.arange(len(used))
        self.cache: dict[str, Tensor] = {}

    def __call__(self, captions: list[str]) -> Tensor:
        for c in captions:
            if c not in self.cache:
                self.cache[c] = self.small[self.tokenize([c])[0]]
                assert int(self.cache[c].min()) >= 0, c
        return torch.stack([self.cache[c] for c in captions])


def pixels(images: list[Image.Image]) -> Tensor:
    stack = np.stack([np.asarray(i) for i in images])
    x = torch.from_numpy(stack).permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.25)
    return x.contiguous(memory_format=torch.channels_last)


def batch(world: World, step: int, easy: bool) -> tuple[Tensor, list[str], Tensor, Tensor]:
    """The batch of one step: pixels, captions, what is shown and what is said (see World.draw)."""
    rng = random.Random(f"pretrain/{step}")
    images, captions, shown, says = zip(*(world.draw(rng, easy) for _ in range(BATCH)), strict=True)
    return pixels(list(images)), list(captions), torch.tensor(shown), torch.tensor(says)


def build(tokens: Tokens) -> nn.Module:
    torch.manual_seed(0)
    model = open_clip.CLIP(**CONFIG)
    model.token_embedding = nn.Embedding(len(tokens.used), CONFIG["text_cfg"]["width"])
    nn.init.normal_(model.token_embedding.weight, std=0.02)
    model.visual.to(memory_format=torch.channels_last)
    return model


def shipped(model: nn.Module, tokens: Tokens) -> int:
    """Load the weights that ship; the step they were exported at."""
    with safe_open(MODEL / "open_clip_model.safetensors", "pt") as file:
        step = int(file.metadata()["step"])
    weights = {k: v.float() for k, v in load_file(MODEL / "open_clip_model.safetensors").items()}
    weights["token_embedding.weight"] = weights["token_embedding.weight"][tokens.used]
    model.load_state_dict(weights)
    return step


def attacked(image: Image.Image, word: str, rng: random.Random, style: str, side: str):
    """The picture with the word on it, or with the label that would bear the word (`blank`)."""
    if style != "blank":
        return draw_attack(image, word, rng, style=style, split=side)[0]
    _, label = draw_attack(image, word, rng, style="note", split=side)
    image = image.copy()
    left, top, right, bottom = label.box
    ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=label.around)
    return image


@torch.no_grad()
def probe(model: nn.Module, tokens: Tokens) -> dict[str, float]:
    """Zero-shot on the everyday concepts A: clean, under a blank label, and with a word on them."""
    model.eval()
    data = EmojiWorld(views=3)
    names, rng = data.classnames, random.Random(0)
    text = F.normalize(model.encode_text(tokens([f"a photo of a {n}." for n in names])), dim=-1)
    found = {}
    for split in ("validation", "test"):
        examples = [e for e in data.examples(split) if e.label in names]
        labels = torch.tensor([names.index(e.label) for e in examples])
        clean = [data.image(e) for e in examples]
        wrong = [rng.choice([n for n in names if n != e.label]) for e in examples]
        written = torch.tensor([names.index(w) for w in wrong])
        side = "test" if split == "test" else "train"
        for style in (None, "blank", "note", "outlined"):
            shown = [
                attacked(i, w, rng, style, side) if style else i
                for i, w in zip(clean, wrong, strict=True)
            ]
            feats = F.normalize(model.encode_image(pixels(shown)).float(), dim=-1)
            guess = (feats @ text.T).argmax(1)
            found[f"{split}/{style or 'clean'}"] = float((guess == labels).float().mean())
            if style in ("note", "outlined"):
                found[f"{split}/{style}/asr"] = float((guess == written).float().mean())
    model.train()
    return {k: round(v, 3) for k, v in found.items()}


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    world = World(args.covered)
    tokens = Tokens(world)
    model = build(tokens)
    decay = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=args.peak, betas=(0.9, 0.98), fused=True)
    start, begun, folder = 0, 0, args.folder
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "state.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        start, begun = saved["step"], saved.get("begun", 0)
    elif args.from_shipped:
        start = begun = shipped(model, tokens)
    log = open(folder / "log.jsonl", "a", encoding="utf-8")  # noqa: SIM115
    ahead = ThreadPoolExecutor(1)  # draws the next batch while this one is learnt
    upcoming = ahead.submit(batch, world, start, start < args.easy)
    began = time.time()
    for step in range(start, args.steps):
        fall = (args.steps - step) / args.cooldown if args.cooldown else 1
        lr = args.peak * min(1, (step + 1 - begun) / WARMUP, fall)
        for group in optimiser.param_groups:
            group["lr"] = lr
        x, captions, shown, says = upcoming.result()
        upcoming = ahead.submit(batch, world, step + 1, step + 1 < args.easy)
        # the fused attention kernel is slower than plain matrix products for 16 tokens
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            image = model.encode_image(x)
            text = model.encode_text(tokens(captions))
        image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
        logits = model.logit_scale.exp() * image @ text.T
        also = agree(shown, says) & ~torch.eye(BATCH, dtype=torch.bool)
        logits = logits.masked_fill(also, -1e4)
        target = torch.arange(BATCH)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if (step + 1) % 50 == 0:
            rate = BATCH * (step + 1 - start) / (time.time() - began)
            row = {"step": step + 1, "loss": round(loss.item(), 4), "images_per_s": round(rate)}
            if (step + 1) % 500 == 0 or step + 1 == args.steps:
                row |= probe(model, tokens)
            print(json.dumps(row), file=log, flush=True)
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            saved = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save(saved | {"step": step + 1, "begun": begun}, folder / "state.tmp")
            os.replace(folder / "state.tmp", state)


def export(args: argparse.Namespace) -> None:
    """Write the open_clip directory in fp16; embeddings of tokens never used are zero."""
    tokens = Tokens(World())
    saved = torch.load(args.folder / "state.pt", weights_only=True)
    weights = saved["model"]
    full = torch.zeros(49408, CONFIG["text_cfg"]["width"])
    full[tokens.used] = weights["token_embedding.weight"]
    weights["token_embedding.weight"] = full
    weights = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in weights.items()}
    MODEL.mkdir(parents=True, exist_ok=True)
    save_file(weights, MODEL / "open_clip_model.safetensors", {"step": str(saved["step"])})
    config = {"model_cfg": CONFIG, "preprocess_cfg": PREPROCESS}
    (MODEL / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    reloaded, _, _ = open_clip.create_model_and_transforms(f"local-dir:{MODEL}")
    assert set(load_file(MODEL / "open_clip_model.safetensors")) <= set(reloaded.state_dict()) | {
        "attn_mask"
    }
    print("exported step", saved["step"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("run", "export"))
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--cooldown", type=int, default=0)
    parser.add_argument(
        "--easy", type=int, default=1000, help="steps with large everyday words on labels"
    )
    parser.add_argument("--peak", type=float, default=1e-3, help="learning rate after the warm-up")
    parser.add_argument("--covered", type=float, default=0.4, help="share covered in part")
    parser.add_argument("--from-shipped", action="store_true", help="go on from what ships")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=HERE / "pretraining")
    args = parser.parse_args()
    (run if args.action == "run" else export)(args)
