"""What support tickets and news say, by topic, tone and urgency."""

from __future__ import annotations

from training.grammar import variants
from training.words import words

TICKETS: dict[str, tuple[str, ...]] = {
    "billing": (
        "I was charged [twice|too much] this month", "my invoice shows the wrong amount", "why did my bill go up",
        "my credit card was [declined|charged again]", "I need a receipt for my payment",
        "the amount on my bill is wrong", "I paid twice for the same order", "you took the money twice",
        "there is a charge that I do not know",
        "why was I charged {number} dollars", "my payment did not go through", "please send me an invoice",
        "the invoice has the wrong address", "my card was charged again",
        "the bill for {month} is too high", "I was charged after the trial ended", "can I pay by bank transfer",
        "the discount is missing on my invoice", "the payment failed {time}",
        "I do not understand my bill", "can you send the receipt again",
    ),
    "shipping": (
        "my parcel has not arrived", "the tracking number does not work", "when will my order be delivered",
        "the package went to the wrong address", "my order is [two weeks|ten days] late",
        "where is my parcel", "my package is lost", "the delivery is late", "the parcel was left at the wrong door",
        "the courier never came",
        "my order was shipped {time} and is still not here", "the tracking says delivered but I have no parcel",
        "can you ship to {city}", "how long does delivery to {city} take", "the package arrived damaged",
        "I am still waiting for my order", "please change the delivery address",
        "the {product} has not been delivered", "when does my package arrive", "the shipment is stuck in {city}",
        "the tracking page shows nothing",
    ),
    "login": (
        "I cannot log in", "I forgot my password", "my account is locked", "the reset email never comes",
        "it says my user name does not exist",
        "my password does not work", "I cannot sign in", "I am locked out of my account",
        "the login page rejects my password", "how do I reset my password",
        "the code for the login never arrives", "I cannot get into my account", "it does not accept my user name",
        "the password reset fails", "I lost access to my account",
        "signing in fails since {time}", "the login fails with my new password", "the sign-in email does not come",
        "I cannot log in on my phone", "my user name is not known",
        "please unlock my account",
    ),
    "bug": (
        "the app crashes when I [open it|press save]", "the page stays blank", "I get an error message at every start",
        "the button does nothing", "the screen freezes after the update",
        "the app freezes", "the program crashes every day", "the page does not load",
        "there is an error when I press save", "the app stops working after the update",
        "the search button does nothing", "the screen stays black", "I see error {number} when I open the app",
        "the list is empty since the update", "the program hangs at the start",
        "the app shows a blank screen", "it crashes when I upload a file", "the page shows an error",
        "nothing happens when I press the button", "the menu is broken since {time}",
        "the app is full of errors",
    ),
    "refund": (
        "I want my money back", "please refund my order", "I sent it back and still wait for the refund",
        "how can I return the {product}", "I would like to return it",
        "I want a refund", "when do I get my money back", "please give me my money back",
        "I returned the {product} and have no refund yet", "I want to send the {product} back",
        "how do I send it back", "can I get a refund for my order", "the refund has not arrived",
        "I would like my money back for the {product}", "where is my refund",
        "can I return the {product}", "I sent the {product} back {time}", "the return label is missing",
        "how long does a refund take", "please pay back the price of the {product}",
        "I wish to return my order",
    ),
    "cancellation": (
        "please cancel my subscription", "I want to close my account", "how do I end my contract",
        "stop my membership please", "I do not want to renew my plan",
        "I want to cancel my subscription", "please cancel my plan", "I wish to end my membership",
        "how can I cancel", "close my account please",
        "please delete my account", "I want to end my contract in {month}", "do not renew my subscription",
        "cancel my contract", "I no longer need the subscription",
        "how do I stop the plan", "please end my membership {time}", "I would like to cancel my membership",
        "cancel everything please", "I want to leave and close my account",
        "my subscription must end now",
    ),
    "feature request": (
        "could you add a dark mode", "it would be nice to export to a file",
        "please add support for [French|German|Spanish]", "I miss a search button",
        "it would help to sort the list",
        "please add a search button", "it would be great to have a dark mode", "can you add an export to a file",
        "I would like a way to sort the list", "a filter for the list would be nice",
        "could you support {colour} themes", "I wish the app had a calendar", "please add a button to share",
        "it would be nice to have a widget", "could you add support for tablets",
        "I miss a dark mode", "it would help to have shortcuts", "can you add more languages",
        "my wish is an offline mode", "please let us export the list",
        "a print button would help",
    ),
    "praise": (
        "I just want to say thank you for the {product}", "your team did a great job", "the new version is wonderful",
        "thanks, everything works now", "I love the new app",
        "thank you for the great work", "I love the {product}", "great job", "the {product} is wonderful",
        "your team is great",
        "thanks for the quick help", "everything works perfectly now", "I am very happy with the {product}",
        "the new app is great", "your support is wonderful",
        "just a big thank you", "you did a wonderful job", "I love the new version", "thanks for the nice {product}",
        "the best support I ever had",
        "keep up the good work",
    ),
}  # fmt: skip
TONES: dict[str, tuple[str, ...]] = {
    "angry": variants(
        "this is [outrageous|unacceptable|a scandal]", "I am [furious|sick of this|fed up|angry|upset|so angry]",
        "this makes me [sick|angry|so angry|upset]", "I am [sick|tired] of [it|you|waiting]", "what a [disgrace|joke]",
        "you are [useless|a disgrace|a joke]", "this is [a joke|useless]", "I have had enough",
        "what is wrong with you people", "this is the third time I write", "fix it NOW", "are you kidding me",
        "I am very upset", "I have had enough of this", "this is ridiculous", "what a scandal",
        "I am sick of it", "how dare you",
        "this makes me furious", "answer me NOW", "this is a disgrace", "you people are useless",
        "I am fed up with you", "I have never been so angry",
    ),
    "polite": variants(
        "[thank you|thanks|many thanks] [for your help|in advance|for your time|for looking into it]",
        "I would be [glad|grateful|happy] if you could help", "[could|can] you kindly help", "have a [good|great] day",
        "[kind|best|warm] [regards|wishes]", "please be so kind and help me",
        "could you please look into it", "I would be very grateful",
        "sorry to bother you", "could you please help me", "I would be grateful for your help",
        "thanks a lot for your help",
        "please help me if you can", "have a nice day", "dear team", "thank you very much",
        "would you please look into it", "sorry for the trouble",
    ),
    "neutral": ("", "my order number is {number}", "I use version {number}", "it started {time}",
    "my customer number is {number}", "I am in {city}", "the order is from {month}", "I wrote {time}",
        "it is order number {number}", "I ordered it {time}"),
}  # fmt: skip
URGENT = variants(
    "[I need|we need|please send] [it|an answer|help] [today|tonight|at once|by tomorrow|within the hour]",
    "[it|this] is [very |]urgent",
    "I am in a [great|terrible] hurry",
    "there is no time to lose",
    "[it|this] [cannot|must not] wait",
    "it is urgent",
    "I need it by tomorrow",
    "please answer today",
    "as soon as possible please",
    "my flight leaves tonight",
    "I need an answer today",
    "please hurry",
    "this is urgent",
    "I need it today",
    "I need help now",
    "it cannot wait",
    "as soon as you can, it is urgent",
    "I must have it by tonight",
    "please help me quickly",
)
NOT_URGENT = variants(
    "[there is |I am in |]no [hurry|rush]",
    "[it|this] is not [very |so |]urgent",
    "[it|this] can wait [until next week|]",
    "[tomorrow|next week|next month|any time] is [fine|soon enough]",
    "no need to [hurry|rush]",
    "take your time",
    "[an answer|a reply] next week is [fine|soon enough]",
    "I am not in a hurry",
    "it need not be today",
    "there is no hurry",
    "take your time",
    "it can wait",
    "whenever you have time",
    "it is not urgent",
    "no hurry",
    "I can wait",
    "there is no rush",
    "this is not urgent",
    "next week is fine",
    "I am in no hurry",
    "take all the time you need",
    "any day is fine",
)

_ANY_NEWS = (
    "a report on the {key} in {city}",
    "{name} talks about the {key}",
    "what the {key} means for {city}",
    "{name} writes about {key}",
    "all about the {key}",
    "{city} talks about the {key} of {name}",
)
"""What can be said about any topic: only its words tell which."""
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
            *_ANY_NEWS,
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
            *_ANY_NEWS,
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
            *_ANY_NEWS,
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
            *_ANY_NEWS,
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
            *_ANY_NEWS,
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
            *_ANY_NEWS,
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
            *_ANY_NEWS,
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
            *_ANY_NEWS,
        ),
    ),
    "music": (
        words("concert, album, singer, orchestra, guitar, band, festival, song, violin, opera, drummer, piano, choir"),
        (
            "the {key} by {name} fills the halls of {city}",
            "{name} is on tour with a new {key}",
            "the {key} opened in {city}",
            *_ANY_NEWS,
        ),
    ),
    "weather": (
        words("storm, rain, snow, heatwave, thunder, wind, frost, flood, sunshine, fog, clouds, drought"),
        (
            "{key} is expected in {city} tomorrow",
            "after days of {key} it gets warmer",
            "the {key} moves from {city} to {city}",
            *_ANY_NEWS,
        ),
    ),
}
