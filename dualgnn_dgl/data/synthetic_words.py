"""Words for the titles of the planted videos: three phrases for each topic of each modality.

A visual topic is a place or a look, an acoustic one a sound, a textual one a subject.
"""

from __future__ import annotations

MODALITIES = ("visual", "acoustic", "textual")

PHRASES: dict[str, tuple[tuple[str, ...], ...]] = {
    "visual": (
        ("under neon signs", "in the neon city", "on a neon-lit street"),
        ("on the beach at sunset", "by the evening sea", "on golden sand"),
        ("on a snowy peak", "in deep snow", "below the glacier"),
        ("in the misty forest", "among old pines", "on a mossy trail"),
        ("under water", "over the coral reef", "beside the kelp"),
        ("in the red desert", "among the dunes", "in the hot canyon"),
        ("on a rooftop", "above the skyline", "twenty floors up"),
        ("in a tiny kitchen", "at the kitchen table", "by the stove"),
        ("in black and white", "on grainy old film", "in a silent-film look"),
        ("seen from a drone", "from high above", "in one long drone shot"),
        ("at the night market", "between market stalls", "in the market crowd"),
        ("in a white studio", "on a plain backdrop", "under studio lights"),
    ),
    "acoustic": (
        ("lo-fi piano", "a sleepy lo-fi loop", "mellow lo-fi keys"),
        ("drum and bass", "a rolling breakbeat", "fast jungle drums"),
        ("fingerstyle guitar", "a campfire guitar", "soft nylon strings"),
        ("a string quartet", "a slow cello", "two violins"),
        ("rain sounds", "thunder far away", "rain on a tin roof"),
        ("warehouse techno", "a four-on-the-floor kick", "deep techno"),
        ("a jazz trio", "a walking double bass", "brushed jazz drums"),
        ("a children's choir", "four-part harmony", "a gospel choir"),
        ("a hip-hop beat", "boom-bap drums", "a freestyle rap"),
        ("retro synths", "an eighties synth line", "a synthwave pulse"),
        ("a folk fiddle", "an accordion reel", "a banjo tune"),
        ("whispering only", "soft ASMR taps", "brush-and-tap ASMR"),
    ),
    "textual": (
        ("three-minute ramen", "one-pan pasta", "dumplings from scratch"),
        ("football tricks", "a free-kick lesson", "keepie-uppie record"),
        ("a cat in a box", "kittens at play", "the cat that opens doors"),
        ("puppy training", "a dog learns to swim", "two dogs, one stick"),
        ("a card trick explained", "sleight of hand", "the vanishing coin"),
        ("a ten-minute workout", "push-up challenge", "stretching for beginners"),
        ("bike repair", "fixing a lamp", "a shelf from scrap wood"),
        ("balcony tomatoes", "repotting a fern", "a garden in a bottle"),
        ("a volcano in a jar", "slow-motion physics", "chemistry with cabbage"),
        ("learning a dance step", "a shuffle tutorial", "salsa for two"),
        ("packing light", "a weekend by train", "cheap travel tips"),
        ("a portrait in one line", "watercolour clouds", "drawing hands"),
    ),
}

TEMPLATES = (
    "{textual} {visual}, with {acoustic}",
    "{textual} {visual} ({acoustic})",
    "{textual} {visual}, set to {acoustic}",
    "{visual}: {textual}, with {acoustic}",
)
