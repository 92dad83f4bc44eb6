"""Converts texts, numbers and times of a file to the types of the canonical columns; the only place that does.

``from_text`` and ``from_arrow`` return the converted values and a mask of the values that the column cannot hold;
masked values are null. Blanks, NaN and the other spellings of ``NO_VALUE`` are null and no error. Both count in
``repaired`` the values that are read as what they mean instead of what they say (see ``chunks``).

Texts are converted by Arrow where it can, as in its CSV reader, and by the ``parse_`` functions below where it cannot.
These take everything that Arrow takes and give the same value, so that the readers' fast and exact paths agree.
"""

from __future__ import annotations

import codecs
import datetime as dt
import math
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..datasets.schema import Column
from .chunks import BAD_VALUE, BOOLEANS, CONTROL_CHARACTERS, NA_VALUES, UNKNOWN_CODE, WINDOWS_1252

#: Spellings of "no value" that tools write into columns of numbers, times and codes (upper case): all that pandas
#: reads so (among them ``NA`` of R, ``<NA>`` of pandas, ``#N/A`` of Excel), NaT, and ``\N`` of SQL dumps. In a column
#: of text they are text: TLC's zone table has zones and boroughs of these names.
NO_VALUE = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NAN", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NAN"}
    | {"NAT", "NONE", "NULL", "\\N"}
)
_BOOLEANS = frozenset({"TRUE", "FALSE", "T", "F"})

#: Characters that nobody sees, trimmed from both ends of every value: control characters, blanks, and characters of
#: no width such as the byte order mark. Within a text they are kept.
_INVISIBLE = "".join(
    chr(code)
    for first, last in (
        (0x00, 0x20),
        (0x7F, 0xA0),
        (0xAD, 0xAD),
        (0x1680, 0x1680),
        (0x2000, 0x200F),
        (0x2028, 0x202F),
        (0x205F, 0x2064),
        (0x3000, 0x3000),
        (0xFEFF, 0xFEFF),
    )
    for code in range(first, last + 1)
)
#: Characters of a text or identifier. Longer ones are no names of anything, and would multiply the memory that each
#: later stage takes.
MAX_TEXT = 1_000
_WHOLE_NUMBER = r"^\s*(\d+(\.0*)?)?\s*$"

INT64 = (-(2**63), 2**63 - 1)
#: Years 1 to 9999, in microseconds since 1970: what all warehouses and Python can hold.
_MICROSECOND = dt.timedelta(microseconds=1)
TIMES = (
    (dt.datetime.min - dt.datetime(1970, 1, 1)) // _MICROSECOND,
    (dt.datetime.max - dt.datetime(1970, 1, 1)) // _MICROSECOND,
)

# Digits are never given back (``++``): a line may have millions, and trying all ways to split them would take years.
_INTEGER = re.compile(r"[+-]?[0-9]++(?=(?:\.0*+)?\Z)")
_FLOAT = re.compile(r"[+-]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?")
_CLOCK = (
    r"(?:[ T]+(?P<hour>\d{1,2})(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,9}))?)?)?"
    r"(?: ?(?P<half>[AP])M)?)?"
)
#: ISO without leading zeros or with slashes; and the American order, month first, of some fhv files and exports.
#: Day first is never tried: these are American files, and guessing would move trips by months.
_TIMES = (
    re.compile(r"(?P<year>\d{4})(?P<sep>[-/])(?P<month>\d{1,2})(?P=sep)(?P<day>\d{1,2})" + _CLOCK, re.ASCII | re.I),
    re.compile(r"(?P<month>\d{1,2})(?P<sep>[-/])(?P<day>\d{1,2})(?P=sep)(?P<year>\d{4})" + _CLOCK, re.ASCII | re.I),
)

#: Values of a column and, where any is bad, the mask of the bad ones.
Converted = tuple[pa.Array, np.ndarray | None]


def trimmed(text: str) -> str:
    """A text without blanks, control characters and characters of no width at its ends."""
    return text.strip(_INVISIBLE)


def reason(column: Column) -> str:
    """Why a value that the column cannot hold is refused."""
    return UNKNOWN_CODE if column.codes else BAD_VALUE


def is_word(column: Column) -> bool:
    """Whether the column holds few distinct words or identifiers, which are converted once per distinct text."""
    return bool(column.texts) or column.upper


def parse_integer(text: str) -> int | None:
    """An integer, also as ``1.0``; None for no value; ``ValueError`` for anything else or beyond 64 bits."""
    if text.upper() in NO_VALUE:
        return None
    match = _INTEGER.match(text)
    if match is None or len(text) > 4000:  # Python refuses to convert more digits
        raise ValueError(text)
    number = int(match.group())
    if not INT64[0] <= number <= INT64[1]:
        raise ValueError(text)
    return number


def parse_float(text: str) -> float | None:
    """A finite decimal number; None for no value; ``ValueError`` for anything else."""
    if text.upper() in NO_VALUE:
        return None
    if not _FLOAT.fullmatch(text):
        raise ValueError(text)
    number = float(text)
    if not np.isfinite(number):
        raise ValueError(text)
    return number


def parse_time(text: str) -> dt.datetime | None:
    """A wall-clock time in one of ``_TIMES``; None for no value; ``ValueError`` for anything else."""
    if text.upper() in NO_VALUE:
        return None
    for pattern in _TIMES:
        match = pattern.fullmatch(text)
        if match:
            break
    else:
        raise ValueError(text)
    part = match.groupdict()
    hour = int(part["hour"] or 0)
    if part["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(text)
        hour = hour % 12 + (12 if part["half"] in "Pp" else 0)
    return dt.datetime(
        int(part["year"]),
        int(part["month"]),
        int(part["day"]),
        hour,
        int(part["minute"] or 0),
        int(part["second"] or 0),
        int((part["fraction"] or "")[:6].ljust(6, "0")),
    )


def parse_word(text: str, column: Column) -> int | str | None:
    """A coded word, flag or identifier of ``column``; ``ValueError`` for a word that stands for no code.

    A number outside of the code table is kept as it is.
    """
    word = text.upper()
    if not word:
        return None
    if word in column.texts:
        return column.texts[word]
    if column.type == "int64":
        return parse_integer(word)
    if column.texts:
        number = parse_integer(word)
        return None if number is None else column.texts.get(str(number), str(number))
    if "\0" in word or len(word) > MAX_TEXT:  # PostgreSQL has no text with NUL
        raise ValueError(text)
    return word


def from_text(texts: pa.Array, column: Column, repaired: Counter[str]) -> Converted:
    """Convert strings, or for a column of words dictionary-encoded strings, to the column's type."""
    if column.type == "int64" or is_word(column):
        return _by_distinct_text(texts, lambda text: parse_word(text, column), column.arrow_type, repaired)
    if column.type == "string":
        return _text(texts, repaired)
    texts = pc.utf8_trim_whitespace(texts)
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, texts.type), texts)
    if column.type == "float64":
        return _by_arrow(texts, column, parse_float, repaired)
    return _by_arrow(texts, column, parse_time, repaired)


def from_arrow(values: pa.Array, column: Column, repaired: Counter[str]) -> Converted:
    """Convert an array of whatever type a Parquet file has. ``TypeError`` if the type can never mean the column."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        if pa.types.is_string(kind.value_type) and is_word(column) and is_utf8(values.dictionary):
            return from_text(values, column, repaired)
        values = values.dictionary_decode()
        kind = values.type
    if pa.types.is_null(kind):
        return pa.nulls(len(values), column.arrow_type), None
    if is_text(kind):
        return from_text(as_string(values, repaired), column, repaired)
    # Exact by way of the text: Arrow's own cast to a double is off in the last digit.
    if pa.types.is_decimal(kind):
        return from_text(_decimal_text(values), column, repaired)
    if pa.types.is_boolean(kind) and column.texts.keys() >= _BOOLEANS:
        return from_text(values.cast(pa.string()), column, repaired)
    if pa.types.is_float16(kind):
        values = values.cast(pa.float32())
    if column.type in ("int64", "float64"):
        return _number(values, column)
    if column.type == "string":
        return from_text(_plain_text(values), column, repaired)
    return _time(values)


def _decimal_text(values: pa.Array) -> pa.Array:
    """Decimals as texts without an exponent: Arrow writes a zero of scale 18 as ``0E-18``."""
    encoded = values.cast(pa.string()).dictionary_encode()
    texts = [f"{Decimal(text):f}" if "E" in text else text for text in encoded.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(encoded.indices, pa.array(texts, pa.string())).dictionary_decode()


def is_utf8(texts: pa.Array) -> bool:
    """Whether an array of strings holds strings. A Parquet file may say so of any bytes."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def not_row_numbers(values: pa.Array) -> int:
    """How many values of a column without a name of its own are more than the number of a row, or nothing."""
    if pa.types.is_integer(values.type):
        return 0
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not (is_text(values.type) or pa.types.is_floating(values.type)):
        return len(values) - values.null_count
    texts = as_string(values, Counter()) if is_text(values.type) else _plain_text(values)
    return pc.sum(pc.invert(pc.match_substring_regex(texts, _WHOLE_NUMBER))).as_py() or 0


def in_range(values: pa.Array) -> bool:
    """Whether all floats are finite and all times lie in ``TIMES``; the readers' fast path needs no more."""
    if pa.types.is_floating(values.type):
        return all_finite(values)
    if pa.types.is_timestamp(values.type):
        return _lies_in(values.view(pa.int64()), *TIMES)
    return True


def all_finite(values: pa.Array) -> bool:
    """Whether no float is NaN or infinite. Their sum tells it in one pass, unless it is too large itself."""
    total = pc.sum(values).as_py()
    return total is None or math.isfinite(total) or bool(pc.all(pc.is_finite(values), min_count=0).as_py())


def _lies_in(values: pa.Array, lowest: int, highest: int) -> bool:
    bounds = pc.min_max(values)
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    return low is None or (low >= lowest and high <= highest)


# -- texts ---------------------------------------------------------------------------------------


def _text(texts: pa.Array, repaired: Counter[str]) -> Converted:
    """Texts without what nobody sees at their ends."""
    values = pc.utf8_trim(texts, _INVISIBLE)
    if not values.equals(texts):
        changed = pc.sum(pc.not_equal(values, pc.utf8_trim_whitespace(texts))).as_py()
        if changed:
            repaired[CONTROL_CHARACTERS] += changed
        values = pc.if_else(pc.equal(values, ""), pa.scalar(None, values.type), values)
    bad = _true(pc.match_substring(values, "\0"))  # PostgreSQL has no such text
    if (pc.max(pc.binary_length(values)).as_py() or 0) > MAX_TEXT:
        bad |= _true(pc.greater(pc.utf8_length(values), MAX_TEXT))
    return (_null_where(values, bad), bad) if bad.any() else (values, None)


def _by_distinct_text(
    texts: pa.Array, parse: Callable[[str], object], kind: pa.DataType, repaired: Counter[str]
) -> Converted:
    """Parse each distinct text once, in Python."""
    if pa.types.is_dictionary(texts.type) and len(texts.dictionary) > len(texts):
        texts = texts.dictionary_decode()  # which has texts of other rows too
    encoded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
    distinct: list[object] = []
    bad = np.zeros(len(encoded.dictionary), bool)
    repairs: dict[str, list[int]] = {}
    for i, text in enumerate(encoded.dictionary.to_pylist()):
        plain = trimmed(text)
        try:
            value = parse(plain)
        except ValueError:
            bad[i] = True
            value = None
        else:
            if repair := _repair(text, plain, value):
                repairs.setdefault(repair, []).append(i)
        distinct.append(value)
    for repair, numbers in repairs.items():
        repaired[repair] += int(np.isin(encoded.indices.fill_null(-1).to_numpy(), numbers).sum())
    values = pa.array(distinct, kind).take(encoded.indices)
    if not bad.any():
        return values, None
    return values, bad[encoded.indices.fill_null(0).to_numpy()] & _valid(encoded.indices)


def _repair(text: str, plain: str, value: object) -> str | None:
    """What was repaired in a text for it to mean the value."""
    if value is None and plain and plain.upper() in NO_VALUE:
        return NA_VALUES
    if plain.upper() in _BOOLEANS and value != plain.upper():
        return BOOLEANS
    return None if plain == text.strip() else CONTROL_CHARACTERS


def _by_arrow(texts: pa.Array, column: Column, parse: Callable[[str], object], repaired: Counter[str]) -> Converted:
    """Convert with Arrow, if need be without what stands for no value; if it refuses any other text, convert all with
    ``parse``, which takes whatever Arrow takes."""
    values = _cast(texts, column)
    if values is None:
        is_nothing = pc.is_in(pc.utf8_upper(texts), pa.array(NO_VALUE))
        values = _cast(pc.if_else(is_nothing, pa.scalar(None, texts.type), texts), column)
        if values is None:
            return _by_distinct_text(texts, parse, column.arrow_type, repaired)
        repaired[NA_VALUES] += pc.sum(is_nothing).as_py()
    return values, None


def _cast(texts: pa.Array, column: Column) -> pa.Array | None:
    """The texts as Arrow converts them, or None if it refuses any or converts it to what the column cannot hold."""
    try:
        values = texts.cast(column.arrow_type)
    except pa.ArrowInvalid:
        return None
    return values if in_range(values) else None


# -- typed values --------------------------------------------------------------------------------


def _number(values: pa.Array, column: Column) -> Converted:
    """Numbers and booleans to int64 or float64. NaN is no value; infinite is bad; so is a fraction in an integer."""
    kind = values.type
    if pa.types.is_boolean(kind):
        return values.cast(pa.int8()).cast(column.arrow_type), None
    if pa.types.is_integer(kind) and not (pa.types.is_uint64(kind) and column.type == "int64"):
        return values.cast(column.arrow_type, safe=False), None
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise TypeError(kind)
    if pa.types.is_integer(kind):  # uint64
        bad = _true(pc.greater(values, pa.scalar(INT64[1], kind)))
        return _null_where(values, bad).cast(pa.int64()), bad if bad.any() else None
    values = values.cast(pa.float64())
    if all_finite(values):
        try:
            return values.cast(column.arrow_type), None
        except pa.ArrowInvalid:
            pass  # a fraction, or more than 64 bits hold
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    bad = _true(pc.invert(pc.is_finite(values)))
    if column.type == "int64":
        bad |= _true(pc.not_equal(pc.floor(values), values))
        bad |= _true(pc.or_(pc.greater_equal(values, float(2**63)), pc.less(values, -float(2**63))))
    values = _null_where(values, bad) if bad.any() else values
    return values.cast(column.arrow_type), bad if bad.any() else None


def _plain_text(values: pa.Array) -> pa.Array:
    """Numbers, booleans and times as text; a whole double loses its ``.0``."""
    kind = values.type
    if pa.types.is_floating(kind):
        return pa.array([_plain(value) for value in values.to_pylist()], pa.string())
    is_time = pa.types.is_date(kind) or pa.types.is_time(kind) or (pa.types.is_timestamp(kind) and kind.tz is None)
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or is_time):
        raise TypeError(kind)
    return values.cast(pa.string())


def _plain(value: float | None) -> str | None:
    if value is None or value != value:
        return None
    return str(int(value)) if value.is_integer() else repr(value)


def _time(values: pa.Array) -> Converted:
    """Times and dates to naive microseconds. A zone's wall clock is taken as it stands, never converted."""
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("ms"))
    elif not pa.types.is_timestamp(values.type):
        raise TypeError(values.type)
    values, bad = _in_range(values)
    if values.type.tz is not None:
        try:
            values = pc.local_timestamp(values)
        except pa.ArrowInvalid:  # a zone that nobody knows
            raise TypeError(values.type) from None
        values, bad_there = _in_range(values)
        bad = bad_there if bad is None else bad if bad_there is None else bad | bad_there
    # What is finer than a microsecond is cut off.
    return values.cast(pa.timestamp("us"), safe=values.type.unit != "ns"), bad


def _in_range(values: pa.Array) -> Converted:
    """Times with those outside of ``TIMES`` masked and null. Nanoseconds do not reach so far."""
    per_unit = {"s": 1_000_000, "ms": 1_000, "us": 1}.get(values.type.unit)
    if per_unit is None:
        return values, None
    raw, (lowest, highest) = values.view(pa.int64()), (-(-TIMES[0] // per_unit), TIMES[1] // per_unit)
    if _lies_in(raw, lowest, highest):
        return values, None
    bad = _true(pc.or_(pc.less(raw, lowest), pc.greater(raw, highest)))
    return _null_where(values, bad), bad


def is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def as_string(values: pa.Array, repaired: Counter[str]) -> pa.Array:
    """An array of texts or bytes as strings that are sure to be UTF-8."""
    with suppress(pa.ArrowInvalid):
        texts = values.cast(pa.string())
        if is_utf8(texts):
            return texts
    decoded = [(None, False) if value is None else decode(value) for value in values.cast(pa.binary()).to_pylist()]
    repaired[WINDOWS_1252] += sum(is_repaired for _, is_repaired in decoded)
    return pa.array([text for text, _ in decoded], pa.string())


def decode(line: bytes) -> tuple[str, bool]:
    """Bytes as text, and whether some of them had to be read as Windows-1252 because they are not UTF-8."""
    try:
        return line.decode(), False
    except UnicodeDecodeError:
        return line.decode(errors=_AS_WINDOWS_1252), True


def _as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    """What UTF-8 cannot be, read as Windows-1252, and the five bytes that it lacks as Latin-1, as browsers do.

    Only the bytes that are wrong: a line may have UTF-8 beside them, when files were put together.
    """
    assert isinstance(error, UnicodeDecodeError)
    wrong = error.object[error.start : error.end]
    return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in wrong), error.end


_AS_WINDOWS_1252 = "trips-windows-1252"
codecs.register_error(_AS_WINDOWS_1252, _as_windows_1252)


def _valid(values: pa.Array) -> np.ndarray:
    return values.is_valid().to_numpy(zero_copy_only=False)


def _true(mask: pa.Array) -> np.ndarray:
    """A boolean array as numpy, null as False."""
    return mask.fill_null(False).to_numpy(zero_copy_only=False)


def _null_where(values: pa.Array, mask: np.ndarray) -> pa.Array:
    return pc.if_else(pa.array(mask), pa.scalar(None, values.type), values)
