"""Tables from CSV text: read, select, group, join, write."""

import csv
import io
from collections import defaultdict


class Table:
    """Rows as dictionaries, all with the same keys."""

    def __init__(self, columns, rows):
        self.columns = list(columns)
        self.rows = [dict(zip(self.columns, row, strict=True)) for row in rows]

    @classmethod
    def read(cls, text):
        """Read CSV text whose first line names the columns."""
        reader = csv.reader(io.StringIO(text))
        columns = next(reader, [])
        return cls(columns, ([convert(cell) for cell in row] for row in reader if row))

    def where(self, condition):
        """The rows for which ``condition`` holds."""
        return self._with([row for row in self.rows if condition(row)])

    def select(self, *columns):
        """Only some columns."""
        return Table(columns, ([row[name] for name in columns] for row in self.rows))

    def order_by(self, column, *, descending=False):
        """Sorted by one column; what is missing comes last."""
        return self._with(
            sorted(
                self.rows,
                key=lambda row: (row[column] is None, row[column]),
                reverse=descending,
            )
        )

    def group_by(self, column, value, combine=sum):
        """Combine the values of each group."""
        groups = defaultdict(list)
        for row in self.rows:
            groups[row[column]].append(row[value])
        return {key: combine(values) for key, values in groups.items()}

    def join(self, other, column):
        """Rows of both that agree in ``column``."""
        known = defaultdict(list)
        for row in other.rows:
            known[row[column]].append(row)
        extra = [name for name in other.columns if name != column]
        return Table(
            [*self.columns, *extra],
            (
                [*row.values(), *(match[name] for name in extra)]
                for row in self.rows
                for match in known[row[column]]
            ),
        )

    def write(self):
        """As CSV text."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return buffer.getvalue()

    def _with(self, rows):
        table = Table(self.columns, ())
        table.rows = rows
        return table


def convert(cell):
    """A number where the text is one, ``None`` where it is empty."""
    if cell == "":
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell
