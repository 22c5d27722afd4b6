"""Vocabulary of the synthetic data: written for this project, with no text from anywhere else.

Invented names come from syllables; a name belongs to the held-out part when its checksum says so, so that the
evaluation asks about names that training never showed.
"""

from __future__ import annotations

import random
import zlib


def words(text: str) -> tuple[str, ...]:
    """Split a comma-separated list of words or phrases."""
    return tuple(w.strip() for w in text.split(",") if w.strip())


GREAT = words(
    "excellent, fantastic, superb, perfect, outstanding, brilliant, wonderful, amazing, flawless, stunning, "
    "awesome, incredible, exceptional, terrific, marvellous, phenomenal, first-class, gorgeous, splendid, "
    "magnificent, delightful, fabulous, remarkable, impressive, masterful, top-notch, unbeatable, spectacular"
)
GOOD = words(
    "good, nice, solid, decent, pleasant, fine, reliable, likeable, handy, fair, enjoyable, satisfying, useful, "
    "well made, convincing, charming, clever, lovely, pretty good, quite good, better than expected, neat, sturdy, "
    "fresh, likable, rewarding, smart, appealing, dependable, well thought out"
)
BAD = words(
    "bad, poor, disappointing, weak, mediocre, dull, annoying, flimsy, unreliable, boring, cheap-looking, sloppy, "
    "confusing, tedious, forgettable, underwhelming, clumsy, unpleasant, lame, tiresome, shaky, "
    "worse than expected, bland, lacking, frustrating, not great, subpar, flat, unconvincing, messy, poorly made"
)
AWFUL = words(
    "terrible, awful, horrible, dreadful, useless, worthless, unbearable, atrocious, disgusting, a disaster, "
    "pathetic, appalling, broken, abysmal, a complete failure, a nightmare, garbage, ridiculous, unacceptable, "
    "laughable, hideous, a joke, trash, infuriating, rubbish, lousy"
)
VERY = words("really, very, truly, just, simply, absolutely, quite, honestly, so, definitely, rather")
PEOPLE = words(
    "wife, husband, mother, father, daughter, son, brother, sister, neighbour, colleague, friend, boss, aunt, "
    "uncle, cousin, grandmother, grandfather, roommate, partner, team"
)
TIMES = words(
    "last week, in March, two months ago, yesterday, on Monday, last summer, in December, a year ago, this spring, "
    "on Friday, three weeks ago, in April, last winter, this morning, at the weekend, in October, a few days ago"
)
FIRST_NAMES = words(
    "Anna, Ben, Clara, David, Emma, Felix, Grace, Henry, Iris, Jonas, Kate, Leo, Maria, Noah, Olivia, Paul, Rosa, "
    "Samuel, Tara, Victor, Wendy, Yusuf, Zoe, Amir, Chloe, Diego, Elena, Hana, Ivan, Julia, Karim, Lena, Mateo, "
    "Nina, Oscar, Priya, Ruth, Simon, Tomas, Vera, Alice, Bruno, Carmen, Daniel, Esther, Frida, George, Helen, "
    "Isaac, Laura, Martin, Nora"
)
CITIES = words(
    "Berlin, Paris, London, Madrid, Rome, Vienna, Oslo, Lisbon, Dublin, Prague, Athens, Warsaw, Boston, Chicago, "
    "Denver, Seattle, Toronto, Sydney, Tokyo, Delhi, Cairo, Lima, Quito, Nairobi, Munich, Hamburg, Milan, Geneva, "
    "Porto, Krakow"
)
COLOURS = words("black, white, red, blue, green, grey, silver, yellow, brown, purple, orange, pink")
MONTHS = words("January, February, March, April, May, June, July, August, September, October, November, December")

PRODUCTS = {
    "electronics": words(
        "phone, laptop, tablet, camera, headphones, speaker, monitor, keyboard, printer, router, smartwatch, "
        "television, charger, projector, microphone, earbuds, radio, webcam"
    ),
    "kitchen": words(
        "toaster, kettle, blender, coffee maker, frying pan, mixer, knife set, rice cooker, oven, juicer, grill, "
        "cutting board, dishwasher, teapot, saucepan, air fryer, bread machine"
    ),
    "clothing": words(
        "jacket, sweater, dress, jeans, boots, shirt, coat, scarf, gloves, sneakers, hat, raincoat, socks, skirt, "
        "hoodie, sandals"
    ),
    "toys": words(
        "puzzle, doll, toy train, board game, building blocks, kite, teddy bear, toy car, card game, dollhouse, "
        "robot toy, yo-yo, marble run, toy kitchen"
    ),
    "garden": words(
        "lawn mower, garden hose, shovel, rake, flower pot, hedge trimmer, sprinkler, garden chair, greenhouse, "
        "wheelbarrow, watering can, bird feeder, leaf blower"
    ),
    "furniture": words(
        "sofa, desk, bookshelf, armchair, mattress, lamp, wardrobe, dining table, office chair, bed frame, "
        "nightstand, stool, cabinet, bench"
    ),
    "sports": words(
        "bicycle, tent, yoga mat, tennis racket, backpack, treadmill, football, helmet, sleeping bag, kayak, skis, "
        "dumbbells, running shoes, swimming goggles, climbing rope"
    ),
    "beauty": words(
        "shampoo, face cream, lipstick, perfume, hair dryer, razor, body lotion, nail polish, sunscreen, soap, "
        "hairbrush, mascara, hand cream"
    ),
    "books": words(
        "novel, cookbook, travel guide, biography, dictionary, comic book, poetry book, thriller, textbook, atlas"
    ),
}

_ONSETS = words("b, br, c, cl, d, dr, f, fl, g, gr, h, j, k, kr, l, m, n, p, pr, qu, r, s, st, t, tr, v, w, z, th, sh")
_VOWELS = words("a, e, i, o, u, ai, ea, io, ou")
_CODAS = ("", "", "n", "r", "l", "s", "x", "nd", "rt", "m", "th", "ck")


def is_held_out(name: str) -> bool:
    """Whether an invented name belongs to the evaluation only (one name in eight)."""
    return zlib.crc32(name.encode()) % 8 == 0


def invented_name(rng: random.Random, held_out: bool) -> str:
    """Make up a capitalised name of two or three syllables from the asked part of the vocabulary."""
    while True:
        syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.choice((1, 2, 2))))
        name = ("".join(syllables) + rng.choice(_ONSETS) + rng.choice(_VOWELS[:5]) + rng.choice(_CODAS)).capitalize()
        if is_held_out(name) == held_out:
            return name
