"""Double entry: accounts, postings that balance, statements."""

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal


class UnbalancedError(ValueError):
    """The postings of an entry do not add up to nothing."""


@dataclass(frozen=True)
class Posting:
    """An amount on an account; negative is credit."""

    account: str
    amount: Decimal


@dataclass(frozen=True)
class Entry:
    """What happened on a day."""

    day: date
    text: str
    postings: tuple

    def __post_init__(self):
        rest = sum((one.amount for one in self.postings), Decimal())
        if rest:
            raise UnbalancedError(f"{self.text}: {rest} too much")


@dataclass
class Ledger:
    """Entries in the order of their days."""

    entries: list = field(default_factory=list)

    def transfer(self, day, text, source, target, amount):
        """Move an amount from one account to another."""
        if amount <= 0:
            raise ValueError("an amount is positive")
        postings = (Posting(source, -amount), Posting(target, amount))
        self.entries.append(Entry(day, text, postings))
        self.entries.sort(key=lambda entry: entry.day)

    def balance(self, account, until=None):
        """What is on an account, the accounts below it included."""
        return sum(
            (
                posting.amount
                for entry in self.entries
                if until is None or entry.day <= until
                for posting in entry.postings
                if posting.account == account or posting.account.startswith(f"{account}:")
            ),
            Decimal(),
        )

    def statement(self, account):
        """Lines of day, text, amount and balance."""
        total = Decimal()
        for entry in self.entries:
            for posting in entry.postings:
                if posting.account == account:
                    total += posting.amount
                    yield entry.day, entry.text, posting.amount, total

    def accounts(self):
        """Every account that was used."""
        return sorted({one.account for entry in self.entries for one in entry.postings})
