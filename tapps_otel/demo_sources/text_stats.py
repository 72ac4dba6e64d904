"""Statistics of a text: words, sentences, readability."""

import re
from collections import Counter

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
SENTENCE_END = re.compile(r"[.!?]+(?:\s|$)")
VOWELS = re.compile(r"[aeiouy]+", re.IGNORECASE)


def words(text):
    """The words of a text, in lower case."""
    return [match.group().lower() for match in WORD.finditer(text)]


def sentences(text):
    """How many sentences a text has; at least one if it has a word."""
    return max(len(SENTENCE_END.findall(text)), 1 if words(text) else 0)


def syllables(word):
    """Roughly how many syllables a word has."""
    count = len(VOWELS.findall(word))
    if word.endswith("e") and count > 1 and not word.endswith(("le", "ee")):
        count -= 1
    return max(count, 1)


def most_common(text, limit=10, ignore=()):
    """The most common words with their counts."""
    counted = Counter(word for word in words(text) if word not in set(ignore))
    return counted.most_common(limit)


def reading_ease(text):
    """Flesch reading ease: 100 is very easy, 0 is very hard."""
    found = words(text)
    if not found:
        return 100.0
    per_sentence = len(found) / sentences(text)
    per_word = sum(map(syllables, found)) / len(found)
    return 206.835 - 1.015 * per_sentence - 84.6 * per_word


def summary(text):
    """Everything at once."""
    found = words(text)
    return {
        "characters": len(text),
        "words": len(found),
        "unique": len(set(found)),
        "sentences": sentences(text),
        "longest": max(found, key=len, default=""),
        "reading_ease": round(reading_ease(text), 1),
    }
