"""How far two texts are apart, and what to do to make one the other."""


def distance(one, other):
    """How many characters must be inserted, removed or replaced."""
    if len(one) < len(other):
        one, other = other, one
    row = list(range(len(other) + 1))
    for place, left in enumerate(one, start=1):
        before, row[0] = row[0], place
        for column, right in enumerate(other, start=1):
            cost = min(row[column] + 1, row[column - 1] + 1, before + (left != right))
            before, row[column] = row[column], cost
    return row[-1]


def edits(one, other):
    """The steps from one text to the other."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for row in range(len(one) + 1):
        for column in range(len(other) + 1):
            if not row or not column:
                table[row][column] = row + column
                continue
            table[row][column] = min(
                table[row - 1][column] + 1,
                table[row][column - 1] + 1,
                table[row - 1][column - 1] + (one[row - 1] != other[column - 1]),
            )
    steps, row, column = [], len(one), len(other)
    while row or column:
        here = table[row][column]
        if row and table[row - 1][column] + 1 == here:
            row -= 1
            steps.append(("remove", row, one[row]))
        elif column and table[row][column - 1] + 1 == here:
            column -= 1
            steps.append(("insert", row, other[column]))
        else:
            row, column = row - 1, column - 1
            if one[row] != other[column]:
                steps.append(("replace", row, other[column]))
    return steps[::-1]


def similarity(one, other):
    """From 0 (nothing in common) to 1 (equal)."""
    longest = max(len(one), len(other))
    return 1 - distance(one, other) / longest if longest else 1.0


def suggest(word, known, limit=3, cutoff=0.6):
    """Words that may have been meant."""
    rated = sorted(((similarity(word, other), other) for other in known), reverse=True)
    return [other for rate, other in rated[:limit] if rate >= cutoff]
