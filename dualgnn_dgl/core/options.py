"""Options as small frozen dataclasses: checked, read from TOML or `key=value`, written to TOML.

Each model has one beside it (`Config`), training has one (`TrainConfig`). A field is made with
`option`, which carries its help and, where they apply, its choices and lower bound; there is no
other place to declare one. An option that is removed leaves its name and its old default in
`Options.REMOVED`, so that files of earlier versions can still be read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from dualgnn_dgl.core.inputs import open_regular
from dualgnn_dgl.core.strict import LARGEST, LONGEST_TOML, parse_toml
from dualgnn_dgl.errors import ConfigError, DualGNNError, toml_text, unknown

C = TypeVar("C")
_SEAL = re.compile(rb"#.{0,10}sha256 ([0-9a-f]{64}) .*")

# Upper bounds of options. They are far above any use, and low enough that a forged value causes
# neither an endless loop nor an overflow.
LAYERS, WIDTH, COUNT = 100, 2**40, 2**31 - 1


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    removed: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """Declares a dataclass field with its help, its choices and its bounds.

    Args:
        default: Default value, whose type the option has.
        help: One line for the command line and run.toml.
        choices: Allowed values; all, if there are none.
        removed: Choices of earlier versions, which a message names as removed.
        low: Lower bound, inclusive.
        high: Upper bound, inclusive.
    """
    metadata = {"help": help, "choices": tuple(choices), "removed": tuple(removed)}
    return dataclasses.field(default=default, metadata=metadata | {"low": low, "high": high})


class Options:
    """Checks each value of a configuration against the rules of its `option`.

    Attributes:
        REMOVED: Names of removed options, each with the default that it had. A file of an earlier
            version may name one with that value; it is then ignored.

    Raises:
        ConfigError: For a value that is not allowed; the message names the key and the remedy.
    """

    REMOVED: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, rule = getattr(self, field.name), field.metadata
            if value in rule["removed"]:
                left = ", ".join(rule["choices"])
                raise ConfigError(f"{field.name}={value} was removed: choose one of {left}")
            if rule["choices"] and value not in rule["choices"]:
                raise ConfigError(unknown(f"value of {field.name}", str(value), rule["choices"]))
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{field.name} is {value}: give a finite number")
            if isinstance(value, int) and abs(value) > LARGEST:
                raise ConfigError(f"{field.name} is {str(value):.30}: give at most {LARGEST}")
            if rule["low"] is not None and value < rule["low"]:
                raise ConfigError(f"{field.name} is {value}: give at least {rule['low']}")
            if rule["high"] is not None and value > rule["high"]:
                raise ConfigError(f"{field.name} is {value}: give at most {rule['high']}")


def keys(kind: type) -> list[str]:
    """Returns the names of a configuration's fields."""
    return [field.name for field in dataclasses.fields(kind)]


def recorded(config: Options) -> dict[str, Any]:
    """Returns the values of a configuration with removed options at their old defaults.

    Results that are kept under a digest of their configuration are found again by this form, which
    does not change when an option is removed.
    """
    return {**config.REMOVED, **dataclasses.asdict(config)}  # type: ignore[call-overload]


def _convert(name: str, value: Any, default: Any, typed: bool) -> Any:
    """Converts `value`, from a file or the command line, to the type of the field's default."""
    wanted = type(default)
    if isinstance(value, str) and wanted is not str and not typed:
        text = value.strip().lower()
        try:
            if wanted is bool and text in ("true", "yes", "on", "1", "false", "no", "off", "0"):
                return text in ("true", "yes", "on", "1")
            if wanted in (int, float):
                return wanted(text)
        except ValueError:
            pass
    elif wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif type(value) is wanted:
        return value
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    raise ConfigError(f"{name} is {value!r:.80}: give {kinds[wanted]}, such as {default!r}")


def build(kind: type[C], values: Mapping[str, Any], where: str = "", *, typed: bool = False) -> C:
    """Makes an options object from the given values; other fields keep their defaults.

    Args:
        kind: The configuration's class.
        values: Values by name. A removed option with its old default is ignored.
        where: The values' place in messages.
        typed: Whether the values come from a JSON or TOML file, which has types: there a text is
            never a number.

    Raises:
        ConfigError: For an unknown key (naming the nearest), a removed option with another value
            than its old default, a value of the wrong type, or one out of its bounds.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    removed: Mapping[str, Any] = getattr(kind, "REMOVED", {})
    kept = {}
    for name, value in values.items():
        if name in fields:
            kept[name] = _convert(name, value, fields[name].default, typed)
        elif name not in removed:
            raise ConfigError(unknown(f"key{' in ' + where if where else ''}", name, fields))
        elif (given := _convert(name, value, removed[name], typed)) != removed[name]:
            raise ConfigError(
                f"{name}={_literal(given):.80} was removed (it is always "
                f"{_literal(removed[name])} now): leave the option out"
            )
    return kind(**kept)


def check_saved(
    kind: type,
    values: Mapping[str, Any],
    path: object,
    what: type[DualGNNError],
    remedy: str,
    where: str = "",
) -> None:
    """Raises `what` unless the `values` of a file are valid for `kind`.

    The message has the file's name and the `remedy`. A missing key was added by a later version,
    and keeps its default. `where` is that of `build`.
    """
    try:
        build(kind, values, where, typed=True)
    except ConfigError as error:
        raise what(f"{path}: {error}: {remedy}") from None


def parse_pair(text: str) -> tuple[str, str]:
    """Splits `key=value` into (key, value).

    >>> parse_pair("lr=0.01")
    ('lr', '0.01')
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"--set {text}: write key=value, such as --set width=64")
    return key.strip(), value


def read_toml(path: str | Path) -> dict[str, Any]:
    """Reads a TOML file as a dictionary; damage gives a one-line error with the file's name."""
    try:
        with open_regular(path, ConfigError) as handle:
            content = handle.read(LONGEST_TOML + 1)
        first, _, rest = content.partition(b"\n")
        said = _SEAL.fullmatch(first.rstrip(b"\r"))
        if (
            said is not None
            and len(content) <= LONGEST_TOML
            and hashlib.sha256(rest).hexdigest().encode() != said[1]
        ):
            raise ConfigError(
                f"{path} is not what was written there: if the change is yours, delete its first "
                f"line"
            )
        return parse_toml(content)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: check --config") from None
    except ValueError as error:
        raise ConfigError(
            f"{path} is not readable TOML ({' '.join(str(error).split())[:300]}): fix it"
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder: --config takes a TOML file") from None


def seal_toml(text: str) -> str:
    """Returns `text` below a line with its SHA-256, which `read_toml` compares."""
    return (
        f"# sha256 {hashlib.sha256(text.encode()).hexdigest()} of all that follows; to edit the "
        f"file, delete this line\n{text}"
    )


def to_toml(values: Any, section: str = "") -> str:
    """Formats options as TOML lines, with each field's help as a comment.

    >>> import dataclasses
    >>> @dataclasses.dataclass(frozen=True)
    ... class Config(Options):
    ...     width: int = option(64, "embedding width D", low=1)
    >>> print(to_toml(Config(), "model"))
    [model]
    width = 64  # embedding width D
    """
    lines = [f"[{section}]"] if section else []
    for field in dataclasses.fields(values):
        choices = f" ({' | '.join(field.metadata['choices'])})" if field.metadata["choices"] else ""
        lines.append(
            f"{field.name} = {_literal(getattr(values, field.name))}  # "
            f"{field.metadata['help']}{choices}"
        )
    return "\n".join(lines)


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return toml_text(value)
    return repr(value)
