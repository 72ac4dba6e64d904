"""Huffman coding: frequent characters get short codes."""

import heapq
from collections import Counter
from itertools import count


def build_tree(text):
    """A tree of nested pairs; its leaves are characters."""
    order = count()
    heap = [(number, next(order), char) for char, number in Counter(text).items()]
    heapq.heapify(heap)
    while len(heap) > 1:
        low, _, left = heapq.heappop(heap)
        high, _, right = heapq.heappop(heap)
        heapq.heappush(heap, (low + high, next(order), (left, right)))
    return heap[0][2] if heap else None


def codes(tree, prefix=""):
    """The code of each character."""
    if tree is None:
        return {}
    if isinstance(tree, str):
        return {tree: prefix or "0"}
    left, right = tree
    return {**codes(left, prefix + "0"), **codes(right, prefix + "1")}


def encode(text):
    """The bits of a text, and the tree that reads them."""
    tree = build_tree(text)
    table = codes(tree)
    return "".join(table[char] for char in text), tree


def decode(bits, tree):
    """The text back.

    :raises ValueError: the bits end inside a character
    """
    if isinstance(tree, str):
        return tree * len(bits)
    text, node = [], tree
    for bit in bits:
        node = node[int(bit)]
        if isinstance(node, str):
            text.append(node)
            node = tree
    if node is not tree:
        raise ValueError("the bits end inside a character")
    return "".join(text)


def saved(text):
    """Share of bits saved against eight a character."""
    bits, _ = encode(text)
    return 1 - len(bits) / (8 * len(text)) if text else 0.0
