"""How near two named places are, by a table of places that the user supplies.

Upstream asks a public geocoder over the network; here nothing does. Without a table the metric is
unscored.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from verifiers.megabench.convert import metric
from verifiers.megabench.registry import Mode, Unscored

Coordinates = tuple[float, float]
"""Latitude and longitude in degrees."""
Geocoder = Callable[[Mapping[str, str]], Coordinates | None]
"""From {"country", "state", "city"}, or the same without "state", to the place; None: unknown."""

DECAY_KM = 100.0
"""Distance at which the score has fallen to 1/e."""

_FIELDS = {"country", "province_or_state", "municipality"}

# WGS 84
_EQUATOR_KM = 6378.137
_FLATTENING = 1 / 298.257223563

_in_use: list[Geocoder] = []


def use_geocoder(geocoder: Geocoder | None) -> None:
    """Makes this process look up places with a geocoder, or with none again."""
    _in_use[:] = [] if geocoder is None else [geocoder]


def read_places(path: Path) -> Geocoder:
    """A geocoder from a table: CSV or JSON rows of country, state, city, latitude, longitude.

    Letter case and surrounding space do not matter. Without a state the first row of that country
    and city counts.

    Raises: ValueError for a row without one of these.
    """
    text = path.read_text(encoding="utf-8")
    rows: Iterable[Any] = (
        json.loads(text) if path.suffix == ".json" else csv.DictReader(text.splitlines())
    )
    places: dict[tuple[str, ...], Coordinates] = {}
    for number, row in enumerate(rows, 1):
        try:
            place = float(row["latitude"]), float(row["longitude"])
            country, state, city = (_plain(row[key]) for key in ("country", "state", "city"))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} row {number}: {row!r} lacks {error}; every row has country, state, city, "
                "latitude and longitude"
            ) from None
        places.setdefault((country, state, city), place)
        places.setdefault((country, city), place)

    def look_up(query: Mapping[str, str]) -> Coordinates | None:
        keys = ("country", "state", "city")
        return places.get(tuple(_plain(query[key]) for key in keys if key in query))

    return look_up


@metric
def geo_proximity_location_dict(prediction: Any, reference: Any, mode: Mode) -> float:
    """exp(-distance / 100 km) of two dicts country, province_or_state, municipality, in [0, 1].

    0 for a place that is incomplete or unknown. Raises: Unscored without a geocoder.
    """
    place = cast(dict[str, Any], prediction)
    if not isinstance(prediction, dict) or set(place) != _FIELDS:
        return 0
    if "" in place.values():
        return 0
    if not _in_use:
        raise Unscored("no table of places: see metrics_location.use_geocoder and read_places")
    guess = _find(place)
    if guess is None:
        return 0
    actual = _find(reference) if set(reference) == _FIELDS else None
    if actual is None:
        if mode == "sound":
            raise Unscored(f"the table does not know the reference {reference!r}")
        return 0  # upstream: the reply pays for it
    return math.exp(-distance_km(guess, actual) / DECAY_KM)


def _find(place: Mapping[str, Any]) -> Coordinates | None:
    country, state, city = (place[key] for key in ("country", "province_or_state", "municipality"))
    if "" in (country, state, city) or not all(isinstance(x, str) for x in (country, state, city)):
        return None
    (geocoder,) = _in_use
    found = geocoder({"country": country, "state": state, "city": city})
    return found if found is not None else geocoder({"country": country, "city": city})


def distance_km(first: Coordinates, second: Coordinates) -> float:
    """Shortest way over the WGS 84 ellipsoid, exact to less than a millimetre.

    For nearly opposite points, where the iteration may not settle, half the circumference is near
    enough: their score is 0. Source: Vincenty, Survey Review 23(176), 1975.
    """
    polar_km = _EQUATOR_KM * (1 - _FLATTENING)
    u1, u2 = (math.atan((1 - _FLATTENING) * math.tan(math.radians(p[0]))) for p in (first, second))
    apart = math.radians(second[1] - first[1])
    longitude = apart
    for _ in range(200):
        sin_l, cos_l = math.sin(longitude), math.cos(longitude)
        across = math.cos(u1) * math.sin(u2) - math.sin(u1) * math.cos(u2) * cos_l
        sin_s = math.hypot(math.cos(u2) * sin_l, across)
        if sin_s == 0:
            return 0.0
        cos_s = math.sin(u1) * math.sin(u2) + math.cos(u1) * math.cos(u2) * cos_l
        angle = math.atan2(sin_s, cos_s)
        sin_a = math.cos(u1) * math.cos(u2) * sin_l / sin_s
        cos2_a = 1 - sin_a**2
        middle = cos_s - 2 * math.sin(u1) * math.sin(u2) / cos2_a if cos2_a > 1e-15 else 0.0
        c = _FLATTENING / 16 * cos2_a * (4 + _FLATTENING * (4 - 3 * cos2_a))
        bend = middle + c * cos_s * (2 * middle**2 - 1)
        before = longitude
        longitude = apart + (1 - c) * _FLATTENING * sin_a * (angle + c * sin_s * bend)
        if abs(longitude - before) < 1e-13:
            break
    else:
        return math.pi * polar_km
    k = cos2_a * (_EQUATOR_KM**2 / polar_km**2 - 1)
    a = 1 + k / 16384 * (4096 + k * (-768 + k * (320 - 175 * k)))
    b = k / 1024 * (256 + k * (-128 + k * (74 - 47 * k)))
    last = b / 6 * middle * (4 * sin_s**2 - 3) * (4 * middle**2 - 3)
    change = b * sin_s * (middle + b / 4 * (cos_s * (2 * middle**2 - 1) - last))
    return polar_km * a * (angle - change)


def _plain(name: object) -> str:
    return str(name).strip().casefold()
