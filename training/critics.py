"""What film critics write: one to three clauses of a dense, ornate language, written for this project.

The clauses are put together at random; none is taken from a review. Every word that judges (`lexicon.py`), and every
clause, is tagged with its sign, so that the model learns a lexicon and how negation and concession turn it.
"""

from __future__ import annotations

import random

from training import phrases, words
from training.grammar import pick, sentence, variants
from training.lexicon import ADJECTIVES, DOES, HOW, MADE, THINGS, VICES, VIRTUES
from training.rows import Fields, Row, common_slots, person
from training.words import words as listed

_FILMS = listed(
    "film, film, film, movie, movie, picture, story, drama, comedy, thriller, sequel, remake, adaptation, "
    "documentary, satire, romance, "
    "horror film, romantic comedy, biopic, fable, western, musical, adventure, fantasy, animated film, "
    "action movie, debut, entry, farce, character study, "
    "family film, tale, portrait, parable, homage, blockbuster, spectacle, franchise, prequel, reboot, mystery, "
    "noir, period piece, war film, caper, cartoon, vehicle, road movie, coming-of-age story"
)
_PARTS = listed(
    "script, screenplay, story, plot, direction, acting, cast, ensemble, performances, dialogue, photography, "
    "cinematography, visuals, score, "
    "soundtrack, music, humor, jokes, gags, characters, premise, pacing, ending, finale, climax, third act, "
    "first half, second half, action, "
    "set pieces, special effects, animation, editing, narrative, tone, lead performance, production design, "
    "costumes, twist, opening, writing, "
    "storytelling, romance, chemistry, material, execution, setup, subplot, villain, hero, heroine, star, "
    "filmmaking, concept, central idea"
)
_ABOUT = listed(
    "love, loss, grief, family, friendship, war, money, power, faith, fame, memory, childhood, aging, ambition, "
    "revenge, marriage, politics, growing up, "
    "the American dream, modern life, small-town life, the past, the future, identity, obsession, sisterhood, "
    "survival, art, work, race, class, immigration, technology, greed, "
    "high school, the music business, the mob, spies, ghosts, vampires, robots, aliens, superheroes, dogs, "
    "football, boxing, space, the sea, the law, a heist, a road trip"
)
_FORMS: dict[int, tuple[str, ...]] = {
    1: (
        "a {A} {film}", "a {A}, {A} {film}", "{A} and {A}", "a {A} and {A} {film}", "a {A} {T}", "a {T}",
        "it is a {T}", "{A}, {A} and {A}",
        "this {film} {D}", "the {film} {D}", "it {D}", "{name}'s {film} {D}", "{actor} {D}", "the {part} {D}",
        "the {part} is {A}",
        "the {part} is {A} and the {part} {A}", "the {film} is {H} {made}", "{H} {made}", "{H} {made} and {A}",
        "{H} {made} and {H} {made}",
        "a {film} of {V} and {V}", "full of {V}", "brimming with {V}", "packed with {V} and {V}",
        "it has {V} to spare", "there is {V} in every frame", "plenty of {V}",
        "{actor} gives a {A} performance", "{actor} is {A}", "{actor} is {A} as {name}",
        "{name} directs with {V} and {V}", "{name} brings {V} to the {film}", "with {V} and {V}",
        "one of the most {A} {film}s of the year", "one of the best {film}s in years",
        "the best {film} about {about} in a long time", "as {A} as it is {A}",
        "never less than {A}", "anything but {B}", "there is nothing {B} about it", "without {W}",
        "mercifully free of {W}", "not a trace of {W}", "it is never {B}", "refuses to be {B}",
        "it avoids {W}", "a {A} look at {about}", "a {A} {film} about {about}", "a {A} meditation on {about}",
        "finds {V} in {about}", "see it", "do not miss it", "don't miss it", "it is worth seeing",
        "well worth the price of admission", "you will {laugh}", "it will make you {laugh}", "a {film} to {treasure}",
        "thanks to {actor}'s {A} turn", "more {V} than any {film} this year",
        "more {A} than it has any right to be", "surprisingly {A}", "wonderfully {A}", "genuinely {A}",
        "{A} from start to finish", "consistently {A}", "{A} stuff", "as good as it gets", "hard to resist",
        "impossible to forget",
        "what a {T}", "the result is a {T}", "the result is {A}", "{name} knows how to tell a story",
        "{name} has made a {A} {film}", "{actor} and {actor} are {A} together",
        "it gives {actor} a role worthy of his talent", "fans will be delighted", "it leaves you wanting more",
        "it deserves to be seen", "a worthy successor", "better than the original", "good fun", "great fun",
        "a lot of fun", "an instant classic",
    ),
    -1: (
        "a {B} {film}", "a {B}, {B} {film}", "{B} and {B}", "a {B} and {B} {film}", "a {B} {U}", "a {U}",
        "it is a {U}", "{B}, {B} and {B}",
        "this {film} {E}", "the {film} {E}", "it {E}", "{name}'s {film} {E}", "{actor} {E}", "the {part} {E}",
        "the {part} is {B}",
        "the {part} is {B} and the {part} {B}", "the {film} is {I} {made}", "{I} {made}", "{I} {made} and {B}",
        "{I} {made} and {I} {made}",
        "a {film} of {W} and {W}", "full of {W}", "riddled with {W}", "marred by {W} and {W}", "nothing but {W}",
        "bogged down in {W}", "too much {W}", "drowning in {W}",
        "{actor} gives a {B} performance", "{actor} is {B}", "{actor} is wasted", "{actor} is miscast as {name}",
        "{name} directs with neither {V} nor {V}", "{name} brings no {V} to the {film}", "not even {actor} can save it",
        "one of the most {B} {film}s of the year", "one of the worst {film}s in years",
        "the worst {film} about {about} in a long time", "as {B} as it is {B}",
        "anything but {A}", "far from {A}", "there is nothing {A} about it", "without {V}", "lacks {V}",
        "it lacks {V} and {V}", "not a trace of {V}", "short on {V}", "devoid of {V}", "{V} is missing", "hardly {A}",
        "not {A} enough", "never {A}",
        "it is neither {A} nor {A}", "tries to be {A} and ends up {B}", "wants to be {A} but is {B}",
        "it could have been {A}", "it should have been {A}", "not nearly as {A} as it thinks", "more {B} than {A}",
        "less {A} than {B}",
        "a {B} look at {about}", "a {B} {film} about {about}", "has nothing to say about {about}",
        "finds no {V} in {about}", "skip it", "avoid it", "don't bother", "wait for the video", "save your money",
        "stay home",
        "not worth the price of admission", "you will {yawn}", "it will make you {yawn}", "a {film} to forget",
        "despite {actor}'s best efforts", "even {name} seems bored",
        "surprisingly {B}", "painfully {B}", "hopelessly {B}", "{B} from start to finish", "consistently {B}",
        "{B} stuff", "too {B} by half", "too {B} to care about", "so {B} that it {E}", "hard to sit through",
        "easy to forget",
        "what a {U}", "the result is a {U}", "the result is {B}", "{name} has nothing to say",
        "{name} has made a {B} {film}", "{actor} and {actor} have no chemistry", "it gives {actor} nothing to do",
        "only fans need apply", "it leaves you wanting less",
        "it deserves to be forgotten", "an unworthy successor", "a far cry from the original", "where is the {V}?",
        "the {V} is gone", "there is no {V} here", "you have seen it all before", "we have seen this {film} before",
        "nobody asked for this {film}",
    ),
}  # fmt: skip
_PLAIN = (
    "a {film} about {about}", "{name}'s new {film}", "{actor} plays {name}, who returns to {city}",
    "the {film} is set in {city}",
    "it is based on the novel by {actor}", "{name}, a {film} by {actor}", "the {part} is by {name}",
    "{name} stars in this {film} about {about} and {about}",
    "this {film} follows {name} through {city}", "from the director of {name}", "the {film} opens in {city}",
    "a {film} for the age of {about}", "{actor} and {actor} star", "it runs for two hours",
    "the {film} is about {about}",
    "{actor} plays a man who dreams of {about}", "a {film}, a {film} and a {film} in one",
    "this is {name}'s third {film}",
    "{name} wrote the {part} and {actor} the {part}", "the {part} begins in {city} and ends in {city}",
    "you may know {actor} from {name}", "once again {name} turns to {about}", "{name} is back",
    "first there was {name}, now there is {name}", "think of {name} with {about}", "it opens on Friday",
    "somewhere in {city} a woman thinks about {about}", "the subject is {about}", "there are robots in it",
    "what {name} did for {about}, {name} does for {about}", "call it a {film} about {about}",
    "{actor} is a cop with a past", "the {film} takes place in one night", "the {part} is from the novel",
    "most of it takes place in {city}", "the camera follows {actor} through {city}", "the year is 1968",
)  # fmt: skip
_LEADS = (
    "as a {film} about {about}", "in the end", "at its heart", "for a {film} about {about}", "with {actor} in the lead",
    "like most {film}s about {about}", "in his second {film}", "from the first scene to the last", "this time",
    "in the hands of {name}", "as directed by {name}", "based on the novel by {name}", "between {about} and {about}",
    "as {film}s go", "by the time {name} appears", "whatever you think of {about}", "when it turns to {about}",
    "if you care about {about}", "part {film}, part {film}", "somewhere between a {film} and a {film}", "set in {city}",
    "beyond the {part}", "whether or not you know {name}", "years after {name}", "much like {name}", "at two hours",
    "for anyone who grew up with {name}", "in an age of {about}", "when {actor} meets {actor}", "like its hero",
    "as {name} once said of {about}", "after a year full of {film}s", "from its opening in {city} on", "for all ages",
)  # fmt: skip
"""What may stand before a clause and judges nothing."""
_TAILS = (
    "in this {film} about {about}", "with {actor} and {actor}", "from the director of {name}", "in the age of {about}",
    "in a {film} about {about}", "even for those who do not know {name}", "for two hours", "from the maker of {name}",
    "by the standards of any {film}", "for fans of {name} and for everyone else", "in {city} and elsewhere",
    "from a writer who knows {about}", "as {name} says to {name}", "if you ask me", "as {film}s about {about} go",
)  # fmt: skip
"""What may stand after a clause and judges nothing."""
_CONCEDED = variants(
    "[although|though|even though|while|even if] {minor}, {major}", "{minor}, yet {major}", "{minor} but {major}",
    "{major}, [although|though|even though|even if] {minor}", "{minor}, [but|yet] in the end {major}",
    "{minor}. [Still|But|Yet|However|Nevertheless|In the end], {major}",
    "{minor}; [still|nevertheless|however] {major}",
    "{minor}. In the end, however, {major}", "[despite the fact|for all|it may be] that {minor}, [|but] {major}",
    "{minor}, but still {major}", "yes, {minor}, but {major}",
)  # fmt: skip
_SLOTS = {"A": (ADJECTIVES, 1), "B": (ADJECTIVES, -1), "T": (THINGS, 1), "U": (THINGS, -1), "D": (DOES, 1),
    "E": (DOES, -1), "H": (HOW, 1), "I": (HOW, -1)}  # fmt: skip
_PLAIN_SLOTS = {
    "film": _FILMS, "part": _PARTS, "made": MADE, "about": _ABOUT,
    "laugh": listed("laugh, cry, smile, cheer, think, gasp"),
    "treasure": listed("treasure, cherish, savor, remember, admire, love"),
    "yawn": listed("yawn, groan, cringe, squirm, wince, sigh, check your watch"),
}  # fmt: skip


def _fill(rng: random.Random, form: str, held_out: bool) -> tuple[str, list[tuple[str, str]]]:
    """A form with all slots filled, and the tags of its judging words."""
    tags: list[tuple[str, str]] = []
    given = common_slots(rng, held_out)
    parts = []
    for i, piece in enumerate(form.replace("}", "{").split("{")):
        if i % 2 == 0:
            parts.append(piece)
        elif piece in _SLOTS:
            table, sign = _SLOTS[piece]
            parts.append(rng.choice(table[sign]))
            tags.append((parts[-1], "word+" if sign > 0 else "word-"))
        elif piece in ("V", "W"):
            parts.append(rng.choice(VIRTUES if piece == "V" else VICES))
            tags.append((parts[-1], "word+" if piece == "V" else "word-"))
        elif piece in _PLAIN_SLOTS:
            parts.append(rng.choice(_PLAIN_SLOTS[piece]))
        else:
            parts.append(
                given[piece]
                if piece != "name"
                else rng.choice((given["name"], rng.choice(words.FIRST_NAMES), given["actor"]))
            )
    text = "".join(parts)
    for vowel in "aeiou":
        text = text.replace(f" a {vowel}", f" an {vowel}")
        text = "an" + text[1:] if text.startswith(f"a {vowel}") else text
    return text, tags


def clause(rng: random.Random, sign: int, held_out: bool) -> tuple[str, list[tuple[str, str]]]:
    """A clause that praises (1) or pans (-1), with its tags; the whole clause is tagged too."""
    text, tags = _fill(rng, pick(rng, _FORMS[sign], held_out), held_out)
    return text, [*tags, (text, "clause+" if sign > 0 else "clause-")]


def critique(rng: random.Random, held_out: bool) -> Row:
    """A critic's line about a film: positive, negative or mixed; a concession yields to its main clause."""
    polarity = rng.choice(("positive", "positive", "negative", "negative", "mixed"))
    sign = {"positive": 1, "negative": -1}.get(polarity, 0)
    tags: list[tuple[str, str]] = []

    def say(wanted: int) -> str:
        text, found = clause(rng, wanted, held_out)
        tags.extend(found)
        return text

    if sign == 0:
        first = rng.choice((1, -1))
        texts = [
            f"{say(first)}, but also {say(-first)}"
            if rng.random() < 0.5
            else f"{sentence(say(first))} {sentence(say(-first))[:-1]}"
        ]
        texts += ["It is a mixed bag"] if rng.random() < 0.4 else []
        stars = 3
    elif rng.random() < 0.25:
        minor, major = say(-sign), say(sign)
        form = "{minor}, but {major}" if rng.random() < 0.25 else pick(rng, _CONCEDED, held_out)
        texts = [form.replace("{minor}", minor).replace("{major}", major)]
        stars = 3 + sign
    else:
        texts = [say(sign) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
        stars = 3 + sign * min(2, len(texts))
        if len(texts) > 1 and rng.random() < 0.5:
            texts = [f"{texts[0]}{rng.choice((', ', ' -- ', '; ', ': ', ' and '))}{texts[1]}", *texts[2:]]
    if rng.random() < 0.3:
        texts[0] = f"{_fill(rng, pick(rng, _LEADS, held_out), held_out)[0]}, {texts[0]}"
    if rng.random() < 0.2:
        texts[-1] = f"{texts[-1]} {_fill(rng, pick(rng, _TAILS, held_out), held_out)[0]}"
    if rng.random() < 0.35:
        texts.insert(rng.choice((0, len(texts))), _fill(rng, rng.choice(_PLAIN), held_out)[0])
    text = " ".join(map(sentence, texts))
    title = f"{rng.choice(('', 'The ', 'The Last ', 'Return to '))}{words.invented_name(rng, held_out)}"
    story = _fill(rng, rng.choice(_PLAIN), held_out)[0]
    fields: Fields = {
        "title": title,
        "movieinfo": sentence(story),
        "genre": rng.choice(phrases.GENRES),
        "critic": person(rng, held_out),
        "review": text,
    }
    facts = {"polarity": polarity, "stars": stars, "aspects": {}, "kids": None, "domain": "film", "title": title}
    return Row("critique", fields, facts, tuple(tags))
