"""``cap``: an amount, a profile's name, or a list of them by model of GPU."""

from collections.abc import Mapping

from wattkeeper.config.policy_shape import AMOUNTS, CHOICE, MOST_MW
from wattkeeper.config.walk import Walk, guess, join
from wattkeeper.config.yaml_lines import Items, Node
from wattkeeper.core.policy import Amount, Cap, Percent, Watts
from wattkeeper.core.request import is_profile_name, parse_amount
from wattkeeper.model import Source
from wattkeeper.text import printable
from wattkeeper.units import parse_power


def read_cap(walk: Walk, node: Node, path: str, profiles: Mapping[str, Cap]) -> Cap | None:
    """A cap as rules, requests, ceilings and ``idle`` have it; None where a problem was noted."""
    if isinstance(node, Items):
        return _by_model(walk, node, path)
    known = f"{AMOUNTS}, a profile ({', '.join(sorted(profiles)) or 'none is defined'}), a list by model"
    text = walk.text(node, path, known)
    if text is None:
        return None
    source = Source(walk.file, node.line)
    if text in profiles:
        return Cap(text=text, choices=profiles[text].choices, source=source, profile=text)
    if parse_amount(text) is None and is_profile_name(text):
        walk.error(node, path, f"unknown profile '{text}'{guess(text, profiles)}", known)
        return None
    amount = _amount(walk, node, path, text, known)
    return None if amount is None else Cap(text=text, choices=(("*", amount),), source=source)


def read_profile(walk: Walk, node: Node, path: str) -> Cap | None:
    """A cap as a profile has it: it may not refer to another profile. None where a problem was noted."""
    if isinstance(node, Items):
        return _by_model(walk, node, path)
    text = walk.text(node, path, f"{AMOUNTS}, a list by model")
    amount = None if text is None else _amount(walk, node, path, text, f"{AMOUNTS}, a list by model")
    if text is None or amount is None:
        return None
    return Cap(text=text, choices=(("*", amount),), source=Source(walk.file, node.line))


def _by_model(walk: Walk, node: Items, path: str) -> Cap | None:
    """``[{model: "*V100*", cap: 150W}, …]``."""
    choices: list[tuple[str, Amount]] = []
    texts: list[str] = []
    taken: set[str] = set()
    whole = True
    for at, item in enumerate(walk.items(node, path), start=1):
        here = f"{path}[#{at}]"
        known = walk.table(item, here, CHOICE.names, CHOICE.required)
        model = walk.text(known["model"][1], join(here, "model")) if "model" in known else None
        text = walk.text(known["cap"][1], join(here, "cap"), AMOUNTS) if "cap" in known else None
        amount = None if text is None else _amount(walk, known["cap"][1], join(here, "cap"), text, AMOUNTS)
        if model is None or amount is None:
            whole = False
            continue
        if "*" in taken or model.lower() in taken:
            walk.error(item, join(here, "model"), "never reached: an earlier entry fits every model that this one fits")
        taken.add(model.lower())
        choices.append((model, amount))
        texts.append(f"{printable(model, 64)}: {text}")
    return Cap(", ".join(texts), tuple(choices), Source(walk.file, node.line)) if choices and whole else None


def _amount(walk: Walk, node: Node, path: str, text: str, allowed: str) -> Amount | None:
    """An amount that a policy may give; None where a problem was noted."""
    amount = parse_amount(text)
    shown = f"'{printable(text, 60)}'"
    if amount is None:
        if parse_power(text) is not None:
            walk.error(node, path, f"{shown} is in milliwatts: write watts", allowed)
        elif is_profile_name(text):
            walk.error(node, path, f"{shown} is not an amount, and a profile's name cannot stand here", allowed)
        else:
            walk.error(node, path, f"{shown} is not a power limit", allowed)
        return None
    if isinstance(amount, Percent) and amount.points > 10_000:
        walk.error(node, path, f"{shown} is more than 100 % of the default limit: write watts, or max", allowed)
        return None
    if isinstance(amount, Watts) and not 1_000 <= amount.limit_mw <= MOST_MW:
        walk.error(node, path, f"{shown} is no limit of a GPU: at least 1 W, at most 100 kW", allowed)
        return None
    return amount
