"""Reading a Hugging Face `config.json`: the file, its keys, and what a missing or wrong one means."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from einscale.errors import ModelError, did_you_mean, near_miss

LARGEST_FILE = 16 * 2**20
"""Bytes of the largest file that is read; a config.json has a few thousand."""

LARGEST_SIZE = 10**9
"""Largest width, depth or vocabulary that a model can mean."""

_JSON_NAMES = {
    str: "the text",
    bool: "the truth value",
    float: "the number",
    int: "the number",
    list: "a list",
    dict: "an object",
}


def read_text(path: str) -> str:
    """Contents of a small text file.

    Raises:
        ModelError: no such file, not a regular file, empty, too large, or not UTF-8.
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:
        reason = (
            "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or str(error)
        )
        raise ModelError(f"cannot read `{path}`: {reason}", expected="the path of a config.json") from None
    if stat.S_ISDIR(status.st_mode):
        inside = Path(path) / "config.json"
        hint = f"did you mean `{inside}`?" if inside.is_file() else None
        raise ModelError(f"`{path}` is a directory", expected="the path of a config.json", hint=hint)
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"`{path}` is not a regular file", expected="the path of a config.json")
    if status.st_size > LARGEST_FILE:
        raise ModelError(
            f"`{path}` has {status.st_size} bytes: too large for a model configuration",
            expected="a config.json of a few kilobytes, not the weights",
        )
    try:
        content = Path(path).read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ModelError(f"cannot read `{path}`: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ModelError(f"`{path}` is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}") from None
    if not text.strip():
        raise ModelError(f"`{path}` is empty", expected="a JSON object")
    return text


def parse_json(text: str, where: str) -> dict[str, Any]:
    """The JSON object of a text.

    Raises:
        ModelError: not JSON, or not an object.
    """
    try:
        data = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        reason = re.sub(r"^JSON is malformed: ", "", str(error))
        place = re.search(r" \(byte (\d+)\)", reason)
        if place is None:
            raise ModelError(f"`{where}` is not JSON: it ends too early", expected="a complete JSON object") from None
        offset = len(text.encode()[: int(place[1])].decode(errors="ignore"))
        raise ModelError(
            f"`{where}` is not JSON: {reason.replace(place[0], '')}", text=text, span=(offset, offset + 1)
        ) from None
    except RecursionError:
        raise ModelError(f"`{where}` is not a model configuration: it is nested too deeply") from None
    if not isinstance(data, dict):
        raise ModelError(f"`{where}` holds {_describe(data)}", expected='a JSON object with keys such as "hidden_size"')
    return data


def _describe(value: object) -> str:
    if value is None:
        return "null"
    name = _JSON_NAMES.get(type(value), "a value")
    return name if isinstance(value, (list, dict)) else f"{name} {msgspec.json.encode(value).decode()[:60]}"


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()[:60]


class ConfigReader(msgspec.Struct):
    """Keys of a configuration, checked as they are read; remembers which defaults were taken.

    Args:
        data: the JSON object.
        where: file or preset, for messages.
        text: the text of the file, so that messages show the line.
        class_name: the transformers class whose defaults apply.
        defaults: that class's documented default of each key that is not a size.
        aliases: key -> the other name, or names, that the class takes for it.
        taken: key -> the default that stands for it, as JSON.
    """

    data: Mapping[str, Any]
    where: str
    text: str
    class_name: str
    defaults: Mapping[str, Any]
    aliases: Mapping[str, str | tuple[str, ...]]
    taken: dict[str, str] = {}

    def error(self, key: str, message: str, expected: str | None = None, hint: str | None = None) -> ModelError:
        """An error about one key, its line underlined."""
        found = re.search(rf'"{re.escape(key)}"\s*:\s*([^,\n}}\]]*[^\s,}}\]])', self.text)
        span = (found.start(1), found.end(1)) if found else None
        text = self.text if found else None
        return ModelError(f'{self.where}: "{key}" {message}', text=text, span=span, expected=expected, hint=hint)

    def wrong(self, key: str, value: object, expected: str) -> ModelError:
        """The error for a value of another type."""
        return self.error(self.key(key), f"is {_describe(value)}", expected)

    def key(self, key: str) -> str:
        """The name under which a key is present."""
        others = self.aliases.get(key, ())
        return next(
            (name for name in (key, *((others,) if isinstance(others, str) else others)) if name in self.data), key
        )

    def value(self, key: str) -> Any:
        """What a key holds, or the class's default."""
        name = self.key(key)
        if name in self.data:
            return self.data[name]
        default = self.defaults[key]
        self.taken[key] = msgspec.json.encode(default).decode()
        return default

    def size(self, key: str, unless_null: int | None = None) -> int:
        """A size of the model: it must be there.

        Args:
            key: its name.
            unless_null: what `null` or, where the class says so, a missing key stands for.

        Raises:
            ModelError: missing, or not a whole number from 1 to a billion.
        """
        name = self.key(key)
        if name not in self.data and (unless_null is None or key not in self.defaults):
            raise self.missing(key)
        value = self.data.get(name)
        if value is None and unless_null is not None:
            self.taken[key] = str(unless_null)
            return unless_null
        return self._whole(name, value)

    def optional_size(self, key: str) -> int:
        """A size that may be null, 0 then; a missing key takes the class's default.

        Raises:
            ModelError: neither null nor a whole number from 1 up.
        """
        value = self.value(key)
        return 0 if value is None else self._whole(key, value, null=True)

    def optional_count(self, key: str) -> int:
        """As `optional_size`, and 0 is 0.

        Raises:
            ModelError: neither null nor a whole number.
        """
        value = self.value(key)
        return 0 if value == 0 and not isinstance(value, bool) else self.optional_size(key)

    def _whole(self, key: str, value: Any, *, null: bool = False) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, value, "a whole number or null" if null else "a whole number")
        if not 1 <= value <= LARGEST_SIZE:
            bound = f"a whole number from 1 to {LARGEST_SIZE:,}"
            raise self.error(self.key(key), f"is {value}", f"null, or {bound}" if null else bound)
        return value

    def missing(self, key: str) -> ModelError:
        """The error for a size that is not there."""
        others = [name for name in self.data if name not in self.defaults]
        miss = near_miss(key, others)
        hint = f"did you mean `{key}` where the file says `{miss}`?" if miss else None
        return ModelError(
            f'{self.where}: the size "{key}" is missing',
            expected=f'a whole number under "{key}", as {self.class_name} writes it; sizes have no default',
            hint=hint,
        )

    def number(self, key: str, low: float = 0.0, high: float = float("inf")) -> float:
        """A number in [low, high).

        Raises:
            ModelError: it is not.
        """
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(key, value, "a number")
        if not low <= value < high:
            bound = f"a number in [{low:g}, {high:g})" if high < float("inf") else f"a number of at least {low:g}"
            raise self.error(self.key(key), f"is {value}", bound)
        return float(value)

    def optional_number(self, key: str) -> float:
        """A number that may be null, 0 then; a missing key takes the class's default.

        Raises:
            ModelError: neither null nor a number of at least 0.
        """
        return 0.0 if self.value(key) is None else self.number(key)

    def nested(self, key: str) -> ConfigReader:
        """A reader of an object inside; a missing or null one reads as empty. What it takes is remembered here.

        Raises:
            ModelError: it is no object.
        """
        value = self.data.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.error(key, "is not an object")
        return replace(self, data=value or {}, aliases={})

    def refuse(self, key: str, wanted: object, why: str) -> None:
        """Raise where a key is present and says something other than the one thing that the class can build.

        Raises:
            ModelError: it does.
        """
        value = self.data.get(key, wanted)
        if value is not None and value != wanted:
            raise self.error(key, f"is {_shown(value)}: {why}", _shown(wanted))

    def flag(self, key: str) -> bool:
        """A truth value.

        Raises:
            ModelError: it is not.
        """
        value = self.value(key)
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def word(self, key: str, known: Mapping[str, str]) -> str:
        """What one of the known words stands for.

        Raises:
            ModelError: it is none of them.
        """
        value = self.value(key)
        if not isinstance(value, str):
            raise self.wrong(key, value, "one of " + ", ".join(known))
        if value not in known:
            raise self.error(self.key(key), f"is `{value}`", hint=did_you_mean(value, known, "known"))
        return known[value]
