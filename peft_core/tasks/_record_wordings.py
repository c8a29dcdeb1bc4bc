"""Small records of made-up inns, people and trips, and the sentences that tell them.

A record's keys and values are not the words of its sentences: ``price : low`` is ``cheap``, ``children : no`` a denial,
``dogs : 3`` a plural. Every kind has several plans; a plan takes the facts in its own order and leaves none out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

from peft_core.tasks._grammar import chance, other, pick

Facts = dict[str, str]
Wording = Callable[[Facts], str]

NAMES_OF_EACH = 48
INNS = ("inn", "tavern", "hotel", "cafe", "restaurant")
FOODS = ("soup", "fish", "bread", "cheese", "pasta", "rice", "cake", "fruit")
PRICES = {"low": "cheap", "medium": "moderately priced", "high": "expensive"}
RATINGS = {"1": "poor", "3": "average", "5": "excellent"}
AREAS = ("harbor", "market", "river", "castle", "station", "garden", "bridge", "church")
JOBS = ("doctor", "teacher", "lawyer", "sailor", "baker", "farmer", "engineer", "painter", "nurse", "cook")
ANIMALS = ("dog", "cat", "horse", "goat", "duck", "rabbit")
TRAITS = ("brave", "quiet", "clever", "proud", "gentle", "nervous")
COUNTS = {"1": "one", "2": "two", "3": "three", "4": "four", "5": "five"}
VEHICLES = {"ship": "sails", "train": "goes by train", "bus": "takes the bus", "horse": "rides", "foot": "walks"}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOURS = {"6": "six", "7": "seven", "8": "eight", "9": "nine", "10": "ten", "11": "eleven"}


@cache
def names(kind: str) -> tuple[str, ...]:
    """Made-up names of inns, people or towns; no name is of two kinds."""
    rng = Random("names of records")
    endings = {"inn": ("ola", "eda", "ura"), "person": ("in", "as", "el"), "town": ("borg", "mouth", "ford")}
    found: dict[str, list[str]] = {}
    for each, tails in endings.items():
        known: dict[str, None] = {}
        while len(known) < NAMES_OF_EACH:
            head = pick(rng, tuple("BDFGKLMNPRTV")) + pick(rng, tuple("aeiou")) + pick(rng, tuple("dlmnrtv"))
            known[head + pick(rng, tails)] = None
        found[each] = list(known)
    return tuple(found[kind])


def article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def counted(facts: Facts, key: str) -> str:
    """``a dog`` or ``three dogs``."""
    animal = facts["animal"]
    return article(animal) if facts[key] == "1" else f"{COUNTS[facts[key]]} {animal}s"


# --- inns -------------------------------------------------------------------------------------------------------


def draw_inn(rng: Random) -> Facts:
    name = pick(rng, names("inn"))
    facts = {"name": name, "type": pick(rng, INNS), "food": pick(rng, FOODS), "price": pick(rng, tuple(PRICES))}
    facts["area"] = pick(rng, AREAS)
    if chance(rng, 0.6):
        facts["children"] = pick(rng, ("yes", "no"))
    if chance(rng, 0.6):
        facts["stars"] = pick(rng, tuple(RATINGS))
    if chance(rng, 0.5):
        facts["near"] = other(rng, names("inn"), name)
    return facts


def _where(facts: Facts) -> str:
    return f"by the {facts['area']}" + (f" close to {facts['near']}" if "near" in facts else "")


def _welcome(facts: Facts) -> str:
    return "welcomes children" if facts["children"] == "yes" else "does not welcome children"


def _inn_extras(facts: Facts, subject: str) -> str:
    """The optional facts as a second sentence, empty where there are none."""
    parts = [_welcome(facts)] if "children" in facts else []
    parts += [f"has {article(RATINGS[facts['stars']])} rating"] if "stars" in facts else []
    return f" {subject} {' and '.join(parts)}." if parts else ""


def inn_by_name(facts: Facts) -> str:
    kind = f"{article(PRICES[facts['price']])} {facts['type']}"
    return f"{facts['name']} is {kind} {_where(facts)} that serves {facts['food']}." + _inn_extras(facts, "It")


def inn_by_place(facts: Facts) -> str:
    text = f"{_where(facts)} there is {article(PRICES[facts['price']])} {facts['type']} called {facts['name']}"
    return f"{text[0].upper()}{text[1:]}, which serves {facts['food']}." + _inn_extras(facts, "It")


def inn_by_food(facts: Facts) -> str:
    kind = f"the {PRICES[facts['price']]} {facts['type']} {facts['name']}"
    return f"You can eat {facts['food']} at {kind} {_where(facts)}." + _inn_extras(facts, "The place")


def inn_by_type(facts: Facts) -> str:
    text = f"The {facts['type']} {facts['name']} serves {facts['food']} and is {PRICES[facts['price']]}."
    return f"{text} It stands {_where(facts)}" + (f" and {extra.strip()}" if (extra := _inn_extras(facts, "")) else ".")


# --- people -----------------------------------------------------------------------------------------------------


def draw_person(rng: Random) -> Facts:
    facts = {"person": pick(rng, names("person")), "job": pick(rng, JOBS), "town": pick(rng, names("town"))}
    facts |= {"animal": pick(rng, ANIMALS), "owns": pick(rng, ("0", *COUNTS))}
    if chance(rng, 0.6):
        facts["trait"] = pick(rng, TRAITS)
    if chance(rng, 0.4):
        facts["friend"] = other(rng, names("person"), facts["person"])
    return facts


def _owning(facts: Facts) -> str:
    return f"has no {facts['animal']}s" if facts["owns"] == "0" else f"has {counted(facts, 'owns')}"


def _job(facts: Facts) -> str:
    return f"{facts['trait']} {facts['job']}" if "trait" in facts else facts["job"]


def _friend(facts: Facts) -> str:
    return f" {facts['friend']} is a friend of {facts['person']}." if "friend" in facts else ""


def person_by_name(facts: Facts) -> str:
    text = f"{facts['person']} is {article(_job(facts))} who lives in {facts['town']} and {_owning(facts)}."
    return text + _friend(facts)


def person_by_town(facts: Facts) -> str:
    return f"In {facts['town']} lives {article(_job(facts))} called {facts['person']}, who {_owning(facts)}." + _friend(
        facts
    )


def person_by_job(facts: Facts) -> str:
    return f"The {_job(facts)} {facts['person']} {_owning(facts)} and lives in {facts['town']}." + _friend(facts)


# --- trips ------------------------------------------------------------------------------------------------------


def draw_trip(rng: Random) -> Facts:
    start = pick(rng, names("town"))
    facts = {"traveler": pick(rng, names("person")), "from": start, "to": other(rng, names("town"), start)}
    facts |= {"by": pick(rng, tuple(VEHICLES)), "day": pick(rng, DAYS)}
    if chance(rng, 0.6):
        facts["hour"] = pick(rng, tuple(HOURS))
    if chance(rng, 0.5):
        facts["back"] = other(rng, DAYS, facts["day"])
    elif chance(rng, 0.3):
        facts["back"] = "never"
    return facts


def _hour(facts: Facts) -> str:
    return f" at {HOURS[facts['hour']]}" if "hour" in facts else ""


def _return(facts: Facts) -> str:
    back = facts.get("back")
    return "" if back is None else " and does not return" if back == "never" else f" and returns on {back}"


def trip_by_day(facts: Facts) -> str:
    when = f"On {facts['day']}{_hour(facts)}"
    way = f"{VEHICLES[facts['by']]} from {facts['from']} to {facts['to']}"
    return f"{when} {facts['traveler']} {way}{_return(facts)}."


def trip_by_name(facts: Facts) -> str:
    way = f"{VEHICLES[facts['by']]} to {facts['to']} from {facts['from']}"
    return f"{facts['traveler']} {way} on {facts['day']}{_hour(facts)}{_return(facts)}."


def trip_by_start(facts: Facts) -> str:
    when = f"on {facts['day']}{_hour(facts)}"
    return f"From {facts['from']}, {facts['traveler']} {VEHICLES[facts['by']]} to {facts['to']} {when}{_return(facts)}."


KINDS: tuple[tuple[Callable[[Random], Facts], tuple[Wording, ...]], ...] = (
    (draw_inn, (inn_by_name, inn_by_place, inn_by_food, inn_by_type)),
    (draw_person, (person_by_name, person_by_town, person_by_job)),
    (draw_trip, (trip_by_day, trip_by_name, trip_by_start)),
)


def draw_record(rng: Random) -> tuple[Facts, tuple[Wording, ...]]:
    """The facts of a record, and the plans that can word it."""
    draw, wordings = pick(rng, KINDS)
    return draw(rng), wordings


def record_text(rng: Random, facts: Facts) -> str:
    """``key : value | key : value``, in any order."""
    entries = rng.sample([f"{key} : {value}" for key, value in facts.items()], len(facts))
    return " | ".join(entries)
