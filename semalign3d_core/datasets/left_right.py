"""Which keypoints change places in the mirror image: from what a file says, from names, or from the user."""

import re
from collections.abc import Sequence

from semalign3d_core.runtime.errors import InputError

SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^A-Za-z\d]+")  # words of snake_case, camelCase and plain names


def flip_permutation(names: Sequence[str], pairs: Sequence[tuple[int | str, int | str]] = ()) -> tuple[int, ...]:
    """Index of the label that every one of ``names`` becomes in the mirror image (tuple of K).

    pairs: ((name or index, name or index), ...) that are known; the rest is read off the names, see ``partner_name``.
    Raises :class:`InputError` for unknown names and for labels that occur in two pairs.
    """
    flip, index = list(range(len(names))), {name: k for k, name in enumerate(names)}
    taken: set[int] = set()
    for first, second in pairs:
        a, b = (_index(label, index, names) for label in (first, second))
        if a == b or {a, b} & taken:
            raise InputError(f"left/right pair {names[a]!r} and {names[b]!r}: every keypoint can be in one pair only")
        taken |= {a, b}
        flip[a], flip[b] = b, a
    for name, a in index.items():
        partner = partner_name(name)
        other = None if partner is None else index.get(partner)
        if other is not None and a != other and not {a, other} & taken:
            flip[a], flip[other] = other, a
    return tuple(flip)


def partner_name(name: str) -> str | None:
    """``name`` with its side exchanged: left_eye -> right_eye, EyeL -> EyeR, l_1 -> r_1; None if it names no side or two."""
    words = WORDS.findall(name)
    sided = [n for n, word in enumerate(words) if word.lower() in SIDES]
    if len(sided) != 1:
        return None
    word = words[sided[0]]
    other = SIDES[word.lower()]
    words[sided[0]] = other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
    return "".join(words)


def unpaired(names: Sequence[str], flip: tuple[int, ...]) -> list[str]:
    """Names that mention a side but have no partner: probably misspelt."""
    return [name for k, name in enumerate(names) if flip[k] == k and partner_name(name) is not None]


def parse_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """``"left_eye:right_eye wheel_1:wheel_2"`` as pairs of names."""
    pairs = []
    for part in text.replace(",", " ").split():
        first, separator, second = part.partition(":")
        if not separator or not first or not second:
            raise InputError(f'--left-right: {part!r} is no pair; write "left_eye:right_eye wheel_1:wheel_2"')
        pairs.append((first, second))
    return tuple(pairs)


def _index(label: int | str, index: dict[str, int], names: Sequence[str]) -> int:
    if isinstance(label, int) and 0 <= label < len(names):
        return label
    if label in index:
        return index[label]
    raise InputError(f"left/right pair names the keypoint {label!r}; there are {', '.join(names)}")
