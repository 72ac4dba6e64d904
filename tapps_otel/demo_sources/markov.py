"""Text by chance: which word follows which."""

import random
from collections import defaultdict


class Chain:
    """Learns from texts, and makes new ones."""

    START, END = "<start>", "<end>"

    def __init__(self, order=1, seed=None):
        if order < 1:
            raise ValueError("a chain looks back at least one word")
        self.order = order
        self._random = random.Random(seed)
        self._following = defaultdict(list)

    def learn(self, text):
        """Take in one sentence."""
        words = [self.START] * self.order + text.split() + [self.END]
        for place in range(len(words) - self.order):
            state = tuple(words[place : place + self.order])
            self._following[state].append(words[place + self.order])

    def make(self, limit=50):
        """A sentence of at most ``limit`` words."""
        state, words = (self.START,) * self.order, []
        while len(words) < limit:
            choices = self._following.get(state)
            if not choices:
                break
            word = self._random.choice(choices)
            if word == self.END:
                break
            words.append(word)
            state = (*state[1:], word)
        return " ".join(words)

    def probability(self, state, word):
        """How likely ``word`` is after ``state``."""
        choices = self._following.get(tuple(state), [])
        return choices.count(word) / len(choices) if choices else 0.0

    @property
    def states(self):
        """How many states are known."""
        return len(self._following)
