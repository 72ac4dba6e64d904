"""A cache that forgets what was not used for the longest time."""

from collections import OrderedDict


class LRUCache:
    """Holds at most ``size`` values."""

    def __init__(self, size):
        if size < 1:
            raise ValueError("a cache holds at least one value")
        self.size = size
        self.hits = self.misses = 0
        self._values = OrderedDict()

    def get(self, key, default=None):
        """The value, which counts as used now."""
        if key not in self._values:
            self.misses += 1
            return default
        self.hits += 1
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key, value):
        """Store a value; the oldest goes if there is no room."""
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self.size:
            self._values.popitem(last=False)

    def __len__(self):
        return len(self._values)

    def __contains__(self, key):
        return key in self._values

    @property
    def hit_rate(self):
        """Share of questions that the cache could answer."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


def cached(size):
    """Let a function of hashable arguments remember its last results."""

    def decorate(function):
        cache = LRUCache(size)
        missing = object()

        def call(*arguments):
            value = cache.get(arguments, missing)
            if value is missing:
                value = function(*arguments)
                cache.put(arguments, value)
            return value

        call.cache = cache
        return call

    return decorate
