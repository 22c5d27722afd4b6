"""What people say: phrases per aspect, audience, topic and tone, from which `rows.py` builds its texts."""

from __future__ import annotations

from dataclasses import dataclass

from training.grammar import variants
from training.words import words


@dataclass(frozen=True, slots=True)
class Aspect:
    """One thing that an opinion may be about: its nouns, and whole phrases that praise or blame it."""

    nouns: tuple[str, ...]
    praise: tuple[str, ...]
    blame: tuple[str, ...]


ASPECTS: dict[str, dict[str, Aspect]] = {
    "product": {
        "battery": Aspect(
            words("battery, battery life"),
            ("the battery lasts [all day|for days|a whole week]", "I [hardly|almost never] have to charge it"),
            ("the battery dies after [an hour|two hours]", "I have to charge it [all the time|three times a day]"),
        ),
        "price": Aspect(
            words("price, cost"),
            (
                "great value for money",
                "it is worth every cent",
                "it is [very|surprisingly] affordable",
                "what a bargain",
            ),
            ("it is [far|much] too expensive", "it is overpriced", "a waste of money", "it is not worth the money"),
        ),
        "delivery": Aspect(
            words("delivery, shipping"),
            ("it arrived [two days early|right on time|the next day]", "delivery was [fast|quick]"),
            (
                "it arrived [two weeks late|far too late]",
                "delivery took [forever|a month]",
                "the parcel got lost at first",
            ),
        ),
        "packaging": Aspect(
            words("packaging, box"),
            ("it was packed with care", "it came in a [sturdy|beautiful] box"),
            ("the box was [crushed|torn|damaged]", "it came badly packed"),
        ),
        "quality": Aspect(
            words("quality, build quality, material"),
            ("it feels [solid|sturdy|well built]", "it is built to last", "it still works like new"),
            ("it fell apart after [a week|two days]", "it feels like cheap plastic", "it broke on the first day"),
        ),
        "design": Aspect(
            words("design, look, colour"),
            ("it looks [beautiful|elegant|stylish]", "everybody asks me where I got it"),
            ("it looks [ugly|cheap|old-fashioned]", "the colour is nothing like the picture"),
        ),
        "size": Aspect(
            words("size, fit"),
            ("it fits perfectly", "it is just the right size"),
            ("it is [far|much] too small", "it is way too big", "it does not fit"),
        ),
        "instructions": Aspect(
            words("manual, instructions"),
            ("the manual is clear and short", "it was set up in five minutes"),
            ("the manual is impossible to understand", "setting it up took [hours|all day]"),
        ),
        "support": Aspect(
            words("customer service, support"),
            ("the support team [helped me at once|was friendly and fast]", "they replaced it without questions"),
            ("nobody answers my emails", "the support team was [rude|no help at all]"),
        ),
        "noise": Aspect(
            words("noise, noise level"),
            ("it is [very|wonderfully|so] quiet", "you can hardly hear it"),
            ("it is [far too|so|terribly] loud", "it makes a [horrible|constant] noise"),
        ),
    },
    "film": {
        "acting": Aspect(
            words("acting, cast, lead performance"),
            ("{actor} gives the performance of a lifetime", "every actor shines", "{actor} is a joy to watch"),
            ("{actor} looks lost in the role", "nobody in it can act", "{actor} is badly miscast"),
        ),
        "plot": Aspect(
            words("plot, story, script"),
            ("the story kept me guessing", "I was hooked from the first minute", "it is full of fresh ideas"),
            ("the story makes no sense", "you can see every twist coming", "nothing ever happens"),
        ),
        "music": Aspect(
            words("music, soundtrack, score"),
            ("I left humming the songs", "the songs lift every scene"),
            ("the songs gave me a headache", "the music drowns the dialogue"),
        ),
        "ending": Aspect(
            words("ending, finale, last act"),
            ("the last scene moved me to tears", "it all comes together at the end"),
            ("the last half hour ruins it", "it just stops without an ending"),
        ),
        "effects": Aspect(
            words("effects, visuals, camera work"),
            ("every frame is a feast for the eyes", "it looks like a painting"),
            ("it looks like a cheap video game", "the monsters look like rubber"),
        ),
        "pace": Aspect(
            words("pace, pacing, editing"),
            ("two hours flew by", "there is not a dull minute in it"),
            ("it drags on [forever|and on]", "I fell asleep [twice|halfway through]", "it is an hour too long"),
        ),
        "humour": Aspect(
            words("humour, jokes, comedy"),
            ("I laughed until I cried", "the whole cinema roared with laughter"),
            ("not one joke lands", "nobody in the cinema laughed"),
        ),
    },
    "place": {
        "food": Aspect(
            words("food, menu, cooking, breakfast"),
            ("everything tasted fresh", "I could eat here every day", "the best {dish} of my life"),
            ("the {dish} was cold", "the {dish} tasted of nothing", "I felt sick afterwards"),
        ),
        "service": Aspect(
            words("service, staff, waiters, reception"),
            ("they greeted us with a smile", "the staff could not do enough for us"),
            ("we waited [an hour|forever] for a table", "the waiter was [rude|in a bad mood]", "we were ignored"),
        ),
        "location": Aspect(
            words("location, view, neighbourhood"),
            ("it is five minutes from the beach", "the view over the bay took our breath away"),
            ("it is miles from anywhere", "our window faced a wall"),
        ),
        "cleanliness": Aspect(
            words("cleanliness, hygiene, bathroom"),
            ("everything was spotless", "it was [very clean|as clean as new]"),
            ("there was hair in the sink", "the floor was [dirty|sticky]", "it smelled of mould"),
        ),
        "price": Aspect(
            words("price, bill, prices"),
            ("you get a lot for your money", "it was cheaper than we thought"),
            ("it is a tourist trap", "we paid far too much", "what a rip-off"),
        ),
        "noise": Aspect(
            words("noise, quiet, atmosphere"),
            ("it was wonderfully quiet at night", "we slept like babies"),
            ("we could not sleep because of the noise", "the music was far too loud to talk"),
        ),
    },
}

_POWERED = ("electronics", "kitchen", "garden")
ONLY_FOR: dict[str, tuple[str, ...]] = {
    "battery": ("electronics", "garden"),
    "noise": _POWERED,
    "instructions": (*_POWERED, "furniture", "toys"),
    "size": ("clothing", "furniture", "sports"),
    "quality": ("electronics", "kitchen", "garden", "clothing", "toys", "furniture", "sports"),
}
"""Product aspects that only some categories have; the others fit every category."""

VERDICTS: dict[int, tuple[str, ...]] = {
    2: (
        "I [absolutely |] love it", "[easily|by far] the best {thing} I have ever [had|seen|tried]",
        "ten out of ten", "a masterpiece", "I could not be happier",
        "I would [buy|choose] it again in a heartbeat", "five stars", "everyone should [have|try|see] this",
        "[highly|warmly] recommended", "I am over the moon", "it [exceeded|beat] all my expectations",
        "simply the best",
    ),
    1: (
        "I like it", "[all in all|overall] I am [happy|satisfied|pleased]", "I would recommend it",
        "I do not regret it", "no complaints", "it does what it should", "[well|definitely] worth a try",
        "I was pleasantly surprised", "I enjoyed it", "it did not disappoint", "it grew on me",
        "nothing to complain about", "thumbs up", "it works well for me",
    ),
    -1: (
        "I [do not|don't] like it", "[all in all|overall] I am [unhappy|disappointed|not happy]",
        "I would not recommend it", "I regret it", "I expected more", "not worth it", "I have seen better",
        "it is not for me", "it let me down", "I would not [buy|choose] it again", "thumbs down",
        "I did not enjoy it", "I [wanted|tried] to like it but could not", "it fails to impress",
    ),
    -2: (
        "I [absolutely |] hate it", "[easily|by far] the worst {thing} I have ever [had|seen|tried]",
        "avoid it at all costs", "zero stars", "I want my money back", "stay away", "never again",
        "what a waste of [time|money]", "do not [buy|bother with] this", "I am furious", "I regret every cent",
        "the worst decision of my life",
    ),
}  # fmt: skip

NEUTRAL: dict[str, tuple[str, ...]] = {
    "product": (
        "I [bought|ordered|got] it {time}", "it is for my {person}", "my {person} has the same one",
        "I have had it since {month}", "it came from {city}", "it was a present from my {person}",
        "my {person} told me about it", "I use it about twice a week", "there are two versions of it",
        "I paid by card", "I chose the {colour} one", "this is my first review",
    ),
    "film": (
        "I saw it {time}", "we watched it with my {person}", "I read about it in a newspaper",
        "my {person} told me about it", "it was shown in {city} {time}", "it is set in {city}",
        "there are two versions of it", "I have the book at home", "this is my first review",
        "I know {actor} from another film",
    ),
    "place": (
        "we went there {time}", "I was there with my {person}", "we ordered {dish}",
        "my {person} told me about it", "it is near the station", "I paid by card", "there are ten tables",
        "we came by train", "this is my first review",
    ),
}  # fmt: skip

_KIDS = variants(
    "[kids|children] [had a great time|loved it|will enjoy it|cannot get enough of it]",
    "fun for [kids|children|families]",
    "[safe|great|good|fit|made|ideal] for [kids|children|families]",
    "[a film|one] for the [kids|children|whole family]",
    "bring the [kids|children|whole family]", "take the [kids|children]", "for the whole family", "child-friendly",
    "[my|our|the] [kids|children|little ones] [love|adore] it", "fun for the whole family",
    "[ideal|perfect] for [kids|children]", "suitable for children", "even toddlers can enjoy it",
    "a family favourite", "our [son|daughter] [smiled|laughed] all the time", "great for [kids|children]",
    "[kids|children] will love it",
    "good for [kids|children] of all ages", "the whole family [loved|enjoyed] it", "a good choice for families",
    "my [son|daughter] loves it",
    "[kids|children] enjoy it a lot", "safe for [kids|children]", "fit for the [whole family|youngest]",
    "my children cannot get enough of it",
    "for [kids|children] and parents alike", "it is child-friendly", "our little ones had a great time",
)  # fmt: skip
FOR_KIDS: dict[str, tuple[str, ...]] = {
    "product": (
        *_KIDS,
        "safe for little hands",
        "my [six|seven|four]-year-old uses it every day",
        "made for [small|young] children",
    ),
    "film": (
        *_KIDS,
        "gentle enough for a five-year-old",
        "a [sweet|gentle] tale for all ages",
        "made for [small|young] children",
    ),
    "place": (*_KIDS, "there is a playground for the kids", "they have high chairs and a children's menu"),
}
_NO_KIDS = variants(
    "[only|just|strictly] for [adults|grown-ups]", "for [adults|grown-ups] only", "[adults|grown-ups] only",
    "[kids|children] must not [see|use|have] it", "[a film|one] for [adults|grown-ups] only", "not child-friendly",
    "[not for|unsuitable for|too dangerous for|too much for] [kids|children|families]", "leave the kids at home",
    "not for [kids|children]", "keep it away from [kids|children]", "strictly for adults", "adults only",
    "not suitable for [kids|children]", "[kids|children] should stay away", "unsuitable for [kids|children]",
    "for adults only",
    "dangerous for [kids|children]", "leave the [kids|children] at home", "nothing for [kids|children]",
    "only for grown-ups",
    "not safe for [kids|children]", "it is for adults", "I would not let [kids|children] near it",
    "too dangerous for [kids|children]",
)  # fmt: skip
NOT_FOR_KIDS: dict[str, tuple[str, ...]] = {
    "product": (
        *_NO_KIDS, "it has small parts that children could swallow", "far too dangerous for [kids|children]",
        "this is not a toy", "too sharp for small hands",
    ),
    "film": (
        *_NO_KIDS, "there is [a lot of|much] [blood|violence|swearing]",
        "far too [violent|scary|brutal] for [kids|children]", "it gave my son nightmares",
        "the [killings|torture scenes] are hard to watch",
        "full of [gore|sex|strong language]", "rated for viewers over eighteen",
    ),
    "place": (
        *_NO_KIDS, "no place for [kids|children]", "children are not welcome there",
        "far too [loud|smoky] for children",
    ),
}  # fmt: skip
DESCRIPTIONS_OF_MANY = (
    "{thing} in {colour}, made in {city}", "{colour} {thing}, ships from {city}", "{thing} from the {city} collection",
    "the new {thing}, now in {colour}",
)  # fmt: skip
DESCRIPTIONS_OF_ONE = (
    *DESCRIPTIONS_OF_MANY, "one {colour} {thing} for everyday use", "our {thing} comes in {colour}",
    "this {thing} has a [two|three|five]-year warranty", "the {thing} weighs {digit} kilos",
)  # fmt: skip
DESCRIBED_FOR_KIDS = variants(
    "[made|safe|fit|suitable] for [kids|children|families]", "for [kids|children] [from|of] age {digit}",
    "child-friendly",
    "made for [small|young] children", "suitable for children from age {digit}", "safe for little hands",
    "loved by children", "[great|ideal|perfect] for [kids|children]", "fun for the whole family", "child-safe edges",
    "for [kids|children] from age {digit}", "safe for [kids|children]", "made for families", "children love it",
    "suitable for [kids|children]",
)  # fmt: skip
DESCRIBED_NOT_FOR_KIDS = variants(
    "[only|just] for [adults|grown-ups]", "for [adults|grown-ups] only", "[adults|grown-ups] only",
    "not child-friendly",
    "[not|not safe|not suitable|not made] for [kids|children]", "[unsuitable|dangerous] for [kids|children]",
    "not for [kids|children]", "keep away from [kids|children]", "for adults only", "only for use by adults",
    "contains small parts that children could swallow", "not a toy", "not suitable for [kids|children]",
    "dangerous for [kids|children]",
    "not safe for [kids|children]", "only for grown-ups", "unsuitable for [kids|children]",
    "sharp edges: too dangerous for [kids|children]",
)  # fmt: skip
PLOTS_FOR_KIDS = (
    "A [little|brave|lost] [rabbit|bear|penguin|dragon|puppy] [looks for|finds] "
    "[its mother|new friends|a home] in {city}.",
    "An animated adventure about a [girl|boy] and [her magic horse|his talking dog].",
    "Toys come alive and [save|celebrate] Christmas.", "A young wizard goes to school and makes friends.",
    "A clumsy robot learns to [dance|sing|fly] with the children of {city}.",
    "Two [elephants|mice|ducklings] travel to the sea.",
)  # fmt: skip
PLOTS_FOR_ADULTS = (
    "A serial killer [hunts|stalks] his victims in {city}.", "A drug dealer in {city} takes bloody revenge.",
    "A soldier sees the horrors of war and torture.", "A brutal gang war breaks out in the prisons of {city}.",
    "A demon possesses a family and kills them one by one.", "An erotic thriller about a murder in {city}.",
)  # fmt: skip
PLOTS_NEUTRAL = (
    "A [lawyer|teacher|doctor] from {city} [starts a new life|changes her job].",
    "Two [sisters|brothers] open a [café|bakery] in {city}.", "An old [painter|pianist] travels to {city}.",
    "A [journalist|professor] follows a story from {city} to {city}.",
)  # fmt: skip

GENRES = words(
    "comedy, drama, thriller, romance, documentary, western, musical, mystery, science fiction, fantasy, horror"
)
DISHES = words("pizza, soup, pasta, fish, steak, curry, salad, sushi, burger, paella, dumplings, cake")
PLACES = words("restaurant, hotel, café, museum, bar, hostel, campsite, bakery, spa, guest house")
