"""Numbers in words."""

NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def number_word(number: int) -> str:
    """`"two"` of 2; above ten in digits."""
    return NUMBERS[number] if number < len(NUMBERS) else str(number)
