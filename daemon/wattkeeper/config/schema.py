"""JSON Schema (draft 7, which every editor knows) of policy files and settings, made of the shapes they are read by.

It accepts whatever the readers accept. What it cannot know (whether a profile exists, or a rule is ever reached) is
for ``wattkeeper check``. It is meant for YAML 1.2, where ``no`` and ``12:00-18:00`` are text.
"""

import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from wattkeeper.config.policy_shape import POLICY, POLICY_KINDS
from wattkeeper.config.settings_shape import SETTINGS, SETTINGS_KINDS
from wattkeeper.config.shapes import Either, Kind, Listed, Named, Nothing, Ref, Shape, Span, Words, Written
from wattkeeper.units import DURATION

Schema = dict[str, Any]

_DRAFT = "http://json-schema.org/draft-07/schema#"
_READ_AS: dict[str, object] = {"true": True, "false": False, "1": 1}
"""Words that YAML takes for something else."""
_WORD_CLASS = re.compile(r"\[[^\]\\]*\\w(?:[^\]\\]|\\.)*\]")
_PARTS = re.compile(r"\\.|\(\?[:=!]|.", re.DOTALL)


def schemas() -> Mapping[str, Schema]:
    """The schema of each kind of file, by the word for it: ``policy`` and ``settings``."""
    return {
        "policy": _document("A policy of Wattkeeper", POLICY, POLICY_KINDS),
        "settings": _document("The settings of Wattkeeper's agent", SETTINGS, SETTINGS_KINDS),
    }


def _document(title: str, shape: Shape, kinds: Mapping[str, Kind]) -> Schema:
    whole: Schema = {"$schema": _DRAFT, "title": title, **schema_of(shape)}
    if kinds:
        whole["definitions"] = {name: schema_of(kind) for name, kind in kinds.items()}
    else:
        whole["type"] = ["object", "null"]  # an empty file has every default
    return whole


def schema_of(kind: Kind) -> Schema:
    """The schema of one kind of value."""
    match kind:
        case Words(words):
            return {"enum": [*words, *(_READ_AS[word] for word in words if word in _READ_AS)]}
        case Span():
            return {"type": "string", "pattern": f"^\\s*(?:{ecma(DURATION)})\\s*$", **_said(kind.allowed)}
        case Nothing():
            return {"type": "null"}
        case Listed(of, empty):
            return {"type": "array", "items": schema_of(of), **({} if empty else {"minItems": 1})}
        case Either(kinds):
            return {"anyOf": [schema_of(one) for one in kinds]}
        case Ref(name, filled):
            refers: Schema = {"$ref": f"#/definitions/{name}"}
            return {"allOf": [refers, {"minProperties": 1}]} if filled else refers
        case Named(names, of):
            return {"type": "object", "propertyNames": _written(names), "additionalProperties": schema_of(of)}
        case Written():
            return _written(kind)
        case Shape():
            return _shape(kind)


def _written(kind: Written) -> Schema:
    types = ["string"]
    if kind.numbers or kind.scalar:
        types.append("number")
    if kind.scalar:
        types.append("boolean")
    schema: Schema = {"type": types if len(types) > 1 else "string", "pattern": _pattern(kind)}
    schema |= _said(kind.allowed)
    if kind.numbers:
        schema |= {"minimum": kind.numbers[0], "maximum": kind.numbers[1]}
    return schema


def _said(allowed: str) -> Schema:
    """What editors say in place of a pattern that does not fit."""
    return {"patternErrorMessage": f"Allowed: {allowed}"} if allowed else {}


def _pattern(kind: Written) -> str:
    """For texts alone: to numbers a pattern does not apply."""
    if not kind.forms:
        return r"\S"
    blank = r"\s*" if kind.trimmed else ""
    return f"^(?=[\\s\\S]*\\S){blank}(?:{'|'.join(map(ecma, kind.forms))}){blank}$"


def _shape(shape: Shape) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": {name: _described(schema_of(key.kind), key.about) for name, key in shape.keys.items()},
        "additionalProperties": False,
    }
    if shape.required:
        schema["required"] = list(shape.required)
    needs: Schema = {name: [other] for pair in shape.pairs for name, other in (pair, pair[::-1])}
    if needs:
        schema["dependencies"] = needs
    if shape.apart:
        one, others = shape.apart
        schema["not"] = {"required": [one], "anyOf": [{"required": [other]} for other in others]}
    if shape.some:
        schema["anyOf"] = [{"required": [name]} for name in shape.some]
    return schema


def _described(schema: Schema, about: str) -> Schema:
    """With the words that an editor shows. Beside a ``$ref`` draft 7 lets nothing stand."""
    return {"description": about, **({"allOf": [schema]} if "$ref" in schema else schema)}


def ecma(pattern: re.Pattern[str]) -> str:
    """A pattern of ours as JavaScript and Python both read it, without flags: groups lose their names, ``\\w`` is any
    character but the ASCII ones that are none, and letters stand in both cases where case does not count."""
    text = re.sub(r"\(\?P<\w+>", "(?:", pattern.pattern).replace(r"\Z", "$")
    text = _WORD_CLASS.sub(lambda found: _beyond_ascii(found[0]), text)
    return _any_case(text) if pattern.flags & re.IGNORECASE else text


def _beyond_ascii(word_class: str) -> str:
    """``[\\w.]`` as a class that leaves out the other ASCII characters."""
    fits = re.compile(word_class, re.ASCII)
    codes = [code for code in range(128) if not fits.match(chr(code))]
    runs = [[code for _, code in run] for _, run in groupby(enumerate(codes), lambda pair: pair[1] - pair[0])]
    return "[^" + "".join(f"\\x{run[0]:02x}-\\x{run[-1]:02x}" for run in runs) + "]"


def _any_case(text: str) -> str:
    """``[km]?w`` as ``[kmKM]?[wW]``."""
    parts: list[str] = []
    letters: list[str] | None = None
    for part in _PARTS.findall(text):
        if letters is not None:
            letters.append(part)
            if part == "]":
                inside = "".join(letters[:-1])
                both = inside if inside.swapcase() == inside else inside + _letters(inside)
                parts.append(f"[{both}]")
                letters = None
        elif part == "[":
            letters = []
        else:
            parts.append(f"[{part.lower()}{part.upper()}]" if part.isalpha() else part)
    return "".join(parts)


def _letters(inside: str) -> str:
    """The letters and ranges of letters of a class, in the other case, as far as they are not there already."""
    found = re.findall(r"\\.|[A-Za-z]-[A-Za-z]|[A-Za-z]", inside)
    return "".join(one.swapcase() for one in found if one[0] != "\\" and one.swapcase() not in found)
