"""Numbers in words."""

NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def number_word(number: int) -> str:
    """`"two"` for 2; digits above ten."""
    return NUMBERS[number] if number < len(NUMBERS) else str(number)
