"""Primes: a sieve, a test, factors."""

import math
import random


def sieve(limit):
    """All primes below ``limit``."""
    if limit < 3:
        return []
    is_prime = bytearray([1]) * limit
    is_prime[:2] = b"\0\0"
    for number in range(2, math.isqrt(limit - 1) + 1):
        if is_prime[number]:
            start = number * number
            is_prime[start::number] = bytes(len(range(start, limit, number)))
    return [number for number in range(limit) if is_prime[number]]


def is_probable_prime(number, rounds=20):
    """Miller and Rabin: wrong for fewer than one composite in 4 ** rounds."""
    if number < 2:
        return False
    for small in (2, 3, 5, 7, 11, 13, 17, 19, 23):
        if number % small == 0:
            return number == small
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(rounds):
        value = pow(random.randrange(2, number - 1), odd, number)
        if value in (1, number - 1):
            continue
        for _ in range(twos - 1):
            value = value * value % number
            if value == number - 1:
                break
        else:
            return False
    return True


def factors(number):
    """Prime factors, the smallest first."""
    found, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1 if divisor == 2 else 2
    if number > 1:
        found.append(number)
    return found


def totient(number):
    """How many numbers below have no factor in common with this one."""
    result = number
    for factor in set(factors(number)):
        result -= result // factor
    return result
