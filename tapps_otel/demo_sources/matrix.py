"""Small matrices as lists of rows."""

from fractions import Fraction


def identity(size):
    """Ones on the diagonal."""
    return [[int(row == column) for column in range(size)] for row in range(size)]


def transpose(matrix):
    """Rows become columns."""
    return [list(column) for column in zip(*matrix, strict=True)]


def multiply(one, other):
    """The product.

    :raises ValueError: they do not fit
    """
    if len(one[0]) != len(other):
        raise ValueError(f"{len(one[0])} columns and {len(other)} rows do not fit")
    columns = transpose(other)
    return [
        [sum(a * b for a, b in zip(row, column, strict=True)) for column in columns]
        for row in one
    ]


def power(matrix, exponent):
    """The matrix, multiplied by itself; by squares, so that it is quick."""
    result = identity(len(matrix))
    while exponent:
        if exponent % 2:
            result = multiply(result, matrix)
        matrix = multiply(matrix, matrix)
        exponent //= 2
    return result


def eliminate(matrix):
    """Row echelon form by exact fractions, and how often rows were exchanged."""
    rows = [[Fraction(value) for value in row] for row in matrix]
    exchanges = at = 0
    for column in range(len(rows[0])):
        pivot = next((row for row in range(at, len(rows)) if rows[row][column]), None)
        if pivot is None:
            continue
        if pivot != at:
            rows[at], rows[pivot] = rows[pivot], rows[at]
            exchanges += 1
        for row in range(at + 1, len(rows)):
            factor = rows[row][column] / rows[at][column]
            rows[row] = [a - factor * b for a, b in zip(rows[row], rows[at], strict=True)]
        at += 1
        if at == len(rows):
            break
    return rows, exchanges


def determinant(matrix):
    """The determinant, exact."""
    rows, exchanges = eliminate(matrix)
    product = Fraction(-1) ** exchanges
    for place, row in enumerate(rows):
        product *= row[place]
    return product


def rank(matrix):
    """How many rows are independent."""
    return sum(any(row) for row in eliminate(matrix)[0])
