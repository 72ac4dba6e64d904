"""A queue that gives the smallest first, and lets priorities change."""


class PriorityQueue:
    """A binary heap with a map of places."""

    def __init__(self, items=()):
        self._heap = []
        self._places = {}
        for item, priority in items:
            self.push(item, priority)

    def push(self, item, priority):
        """Add an item, or change its priority."""
        if item in self._places:
            place = self._places[item]
            before, self._heap[place] = self._heap[place], (priority, item)
            self._sink(place) if priority > before[0] else self._rise(place)
            return
        self._heap.append((priority, item))
        self._places[item] = len(self._heap) - 1
        self._rise(len(self._heap) - 1)

    def pop(self):
        """Remove the smallest and give it.

        :raises IndexError: the queue is empty
        """
        if not self._heap:
            raise IndexError("the queue is empty")
        self._swap(0, len(self._heap) - 1)
        _, item = self._heap.pop()
        del self._places[item]
        if self._heap:
            self._sink(0)
        return item

    def peek(self):
        """The smallest, which stays."""
        return self._heap[0][1]

    def __len__(self):
        return len(self._heap)

    def __contains__(self, item):
        return item in self._places

    def _swap(self, one, other):
        heap, places = self._heap, self._places
        heap[one], heap[other] = heap[other], heap[one]
        places[heap[one][1]], places[heap[other][1]] = one, other

    def _rise(self, place):
        while place:
            above = (place - 1) // 2
            if self._heap[above][0] <= self._heap[place][0]:
                return
            self._swap(place, above)
            place = above

    def _sink(self, place):
        while True:
            below = 2 * place + 1
            if below >= len(self._heap):
                return
            if below + 1 < len(self._heap) and self._heap[below + 1][0] < self._heap[below][0]:
                below += 1
            if self._heap[place][0] <= self._heap[below][0]:
                return
            self._swap(place, below)
            place = below
