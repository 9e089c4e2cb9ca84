"""The recipe's section ``data``: where rows come from, what their columns mean, how they are cut."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from gradex_fast.sections import Section
from gradex_fast.text_template import columns_of

FILE_ENDING = re.compile(r"\.(?:(jsonl|json|csv)(?:\.(gz|zst))?|(parquet))$", re.IGNORECASE)
"""What is a file by its name, and not the id of a data set on the hub."""


class ExpectRecipe(Section):
    """What was there when the recipe was written; anything else is an error. Not looked at under a `limit`."""

    rows: int | None = Field(None, ge=1)


class GroupedExpectRecipe(ExpectRecipe):
    groups: int | None = Field(None, ge=1, description="different values of `by`")


class FileRecipe(Section):
    """Where rows come from and which of their columns mean what; None means recognised by name."""

    path: str = Field(description="JSONL, Parquet or CSV file, or a hub id")
    config: str | None = Field(None, description="the hub data set's configuration")
    split: str = "train"
    revision: str | None = None
    files: str | tuple[str, ...] | None = Field(None, description="of the hub data set, if not all that it has")
    limit: int | None = Field(None, ge=1, description="at most so many rows, from the front")
    expect: ExpectRecipe | None = None
    prompt: str | None = None
    completion: str | None = None
    prompt_template: str | None = Field(None, description="in place of `prompt`: text with {column} in it")
    completion_template: str | None = Field(None, description="in place of `completion`")
    words: dict[str, dict[str, str]] = Field({}, description="column: value: what a template writes for it")
    messages: str | None = Field(None, description="the column of a conversation, of role/content or from/value")
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None

    @field_validator("words", mode="before")
    @classmethod
    def _values_as_text(cls, words: Any) -> Any:
        """YAML reads the values 0 and true as a number and a truth value."""
        if not isinstance(words, dict) or not all(isinstance(each, dict) for each in words.values()):
            return {} if words is None else words
        text = {True: "true", False: "false"}
        return {
            column: {text[v] if isinstance(v, bool) else str(v): word for v, word in each.items()}
            for column, each in words.items()
        }

    @model_validator(mode="after")
    def _templates(self) -> FileRecipe:
        templates = {name: getattr(self, name) for name in ("prompt_template", "completion_template")}
        columns = [column for text in templates.values() if text is not None for column in columns_of(text)]
        for name, text in templates.items():
            if text is not None and getattr(self, name.removesuffix("_template")) is not None:
                raise ValueError(f"give {name.removesuffix('_template')} or {name}, not both")
        if unused := next((column for column in self.words if column not in columns), None):
            raise ValueError(f"words has the column {unused!r}, which is in no template")
        return self


class SourceRecipe(FileRecipe):
    """One source: a file and its name (by default the file's stem)."""

    name: str | None = None


class PatternRecipe(Section):
    """One way in which a text names its source."""

    find: str = Field(description="regular expression, looked for in the text")
    source: str | None = Field(None, description="None: what its first group found, in lower case")

    @model_validator(mode="after")
    def _has_a_name(self) -> PatternRecipe:
        try:
            groups = re.compile(self.find).groups
        except re.error as error:
            raise ValueError(f"{self.find!r} is no regular expression: {error}") from error
        if self.source is None and not groups:
            raise ValueError(f"{self.find!r} has no group (in parentheses); give the source's name as source")
        return self


class GroupedRecipe(FileRecipe):
    """Many sources in one file, told apart by a column."""

    by: str = Field(description="the column that names a row's source")
    patterns: tuple[PatternRecipe, ...] | None = Field(
        None, description="how the text in `by` names it, the first that is found; None: the text is the name"
    )
    unassigned: Literal["error", "drop", "source"] = Field(
        "error", description="rows that name none: left out, or one source, called unassigned"
    )
    expect: GroupedExpectRecipe | None = None


class TargetRecipe(Section):
    """The task that the model is for."""

    train: FileRecipe | None = None
    validation: FileRecipe
    test: FileRecipe | None = None


SOURCE_TAGS = ("listed", "grouped")


def _source_tag(value: Any) -> str:
    return SOURCE_TAGS[isinstance(value, (dict, GroupedRecipe))]


_Listed = Annotated[tuple[SourceRecipe, ...], Field(min_length=1), Tag("listed")]
_Grouped = Annotated[GroupedRecipe, Tag("grouped")]


class DataRecipe(Section):
    folder: str = Field(".", description="relative paths start here")
    sources: Annotated[_Listed | _Grouped, Discriminator(_source_tag)]
    target: TargetRecipe
    max_length: int = Field(1024, ge=2, description="tokens; longer rows are cut")
    truncation_side: Literal["left", "right"] = Field("right", description="where they are cut")
    completion_only_loss: bool | None = Field(
        None, description="loss on the completion alone (the default where there is a prompt), or false: on all tokens"
    )
    assistant_only_loss: bool | None = Field(
        None, description="of conversations: on assistant turns alone (the default), or false: on all tokens"
    )
    on_overlap: Literal["error", "drop"] = Field(
        "error", description="training rows that equal a validation or test row"
    )
