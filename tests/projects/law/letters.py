"""A list over a list."""

from pydantic import BaseModel

from refold import transform


class Item(BaseModel):
    user_id: str | None
    item: str


class Letter(BaseModel):
    user_id: str | None
    letter: str


@transform(reads="items")
def letters(row: Item) -> list[Letter]:
    """The letters of each item."""
    return [Letter(user_id=row.user_id, letter=letter) for letter in row.item]
