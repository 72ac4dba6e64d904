"""Roman numerals from 1 to 3999."""

import re

VALUES = [
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"),
    (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
]
VALID = re.compile(r"M{0,3}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})")


def to_roman(number):
    """Write a number.

    :raises ValueError: the Romans could not
    """
    if not 1 <= number <= 3999:
        raise ValueError(f"{number} is not between 1 and 3999")
    parts = []
    for value, letters in VALUES:
        times, number = divmod(number, value)
        parts.append(letters * times)
    return "".join(parts)


def from_roman(text):
    """Read a numeral.

    :raises ValueError: it is not well formed
    """
    numeral = text.strip().upper()
    if not numeral or not VALID.fullmatch(numeral):
        raise ValueError(f"{text!r} is not a Roman numeral")
    total = place = 0
    for value, letters in VALUES:
        while numeral.startswith(letters, place):
            total += value
            place += len(letters)
    return total
