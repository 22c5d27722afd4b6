"""What support tickets and news say, by topic, tone and urgency."""

from __future__ import annotations

from training.words import words

TICKETS: dict[str, tuple[str, ...]] = {
    "billing": (
        "I was charged [twice|too much] this month", "my invoice shows the wrong amount", "why did my bill go up",
        "my credit card was [declined|charged again]", "I need a receipt for my payment",
    ),
    "shipping": (
        "my parcel has not arrived", "the tracking number does not work", "when will my order be delivered",
        "the package went to the wrong address", "my order is [two weeks|ten days] late",
    ),
    "login": (
        "I cannot log in", "I forgot my password", "my account is locked", "the reset email never comes",
        "it says my user name does not exist",
    ),
    "bug": (
        "the app crashes when I [open it|press save]", "the page stays blank", "I get an error message at every start",
        "the button does nothing", "the screen freezes after the update",
    ),
    "refund": (
        "I want my money back", "please refund my order", "I sent it back and still wait for the refund",
        "how can I return the {product}", "I would like to return it",
    ),
    "cancellation": (
        "please cancel my subscription", "I want to close my account", "how do I end my contract",
        "stop my membership please", "I do not want to renew my plan",
    ),
    "feature request": (
        "could you add a dark mode", "it would be nice to export to a file",
        "please add support for [French|German|Spanish]", "I miss a search button",
        "it would help to sort the list",
    ),
    "praise": (
        "I just want to say thank you for the {product}", "your team did a great job", "the new version is wonderful",
        "thanks, everything works now", "I love the new app",
    ),
}  # fmt: skip
TONES: dict[str, tuple[str, ...]] = {
    "angry": (
        "this is [outrageous|unacceptable|a scandal]", "I am [furious|sick of this|fed up]",
        "what is wrong with you people", "this is the third time I write", "fix it NOW", "are you kidding me",
    ),
    "polite": (
        "thank you for your help", "could you please look into it", "kind regards", "I would be very grateful",
        "many thanks in advance", "sorry to bother you",
    ),
    "neutral": ("", "my order number is {number}", "I use version {number}", "it started {time}"),
}  # fmt: skip
URGENT = (
    "it is urgent",
    "I need it by tomorrow",
    "please answer today",
    "as soon as possible please",
    "my flight leaves tonight",
)
NOT_URGENT = ("there is no hurry", "take your time", "it can wait", "whenever you have time", "it is not urgent")

NEWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sports": (
        words(
            "match, goal, team, coach, championship, player, tournament, league, stadium, race, medal, referee, "
            "season, striker"
        ),
        (
            "{name} won the {key} {number} to {digit}",
            "the {key} of {name} ended in a draw",
            "the {key} was decided in the last minute",
        ),
    ),
    "politics": (
        words(
            "parliament, election, minister, vote, government, senator, law, party, campaign, president, treaty, "
            "opposition, mayor"
        ),
        (
            "the {key} in {city} agreed on a new law",
            "{name} lost the vote in the {key}",
            "the {key} begins its campaign in {city}",
        ),
    ),
    "technology": (
        words(
            "software, smartphone, robot, chip, computer, app, internet, artificial intelligence, update, "
            "data centre, browser, startup"
        ),
        (
            "{name} presented a new {key}",
            "the {key} by {name} is twice as fast",
            "a flaw in the {key} was found by engineers",
        ),
    ),
    "health": (
        words(
            "vaccine, hospital, doctors, patients, diet, disease, therapy, virus, medicine, surgery, nurses, "
            "sleep, blood pressure"
        ),
        (
            "a study on {key} was published in {city}",
            "the {key} helps against the illness",
            "experts warn that {key} matter more",
        ),
    ),
    "business": (
        words(
            "shares, profit, company, market, bank, merger, investors, sales, stock exchange, budget, inflation, "
            "factory, trade"
        ),
        (
            "{name} reported higher {key}",
            "the {key} of {name} fell by {number} percent",
            "the {key} in {city} grew this quarter",
        ),
    ),
    "science": (
        words(
            "telescope, planet, physicists, fossil, experiment, galaxy, atoms, species, laboratory, gravity, "
            "comet, biologists, DNA"
        ),
        (
            "researchers in {city} studied the {key}",
            "a new {key} was discovered near {city}",
            "{name} explains the {key} in a paper",
        ),
    ),
    "travel": (
        words(
            "beach, hotel, island, airport, tourists, train ride, mountain hut, cruise, hiking trail, passport, "
            "luggage, old town"
        ),
        (
            "the {key} near {city} is open again",
            "visitors of {city} should see the {key}",
            "a weekend in {city} begins at the {key}",
        ),
    ),
    "food": (
        words(
            "recipe, chef, cheese, bread, restaurant, wine, vegetables, soup, chocolate, spices, oven, dessert, "
            "olive oil"
        ),
        (
            "the {key} from {city} tastes of summer",
            "{name} shares the secret of a good {key}",
            "how to serve {key} to guests",
        ),
    ),
    "music": (
        words("concert, album, singer, orchestra, guitar, band, festival, song, violin, opera, drummer, piano, choir"),
        (
            "the {key} by {name} fills the halls of {city}",
            "{name} is on tour with a new {key}",
            "the {key} opened in {city}",
        ),
    ),
    "weather": (
        words("storm, rain, snow, heatwave, thunder, wind, frost, flood, sunshine, fog, clouds, drought"),
        (
            "{key} is expected in {city} tomorrow",
            "after days of {key} it gets warmer",
            "the {key} moves from {city} to {city}",
        ),
    ),
}
